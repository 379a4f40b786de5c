"""Fixtures for the tests on real vLLM."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from served_models import REAL, Served, real_served, tiny_served


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Served]:
    """A model by name, made once."""
    made: dict[str, Served] = {}

    def by_name(name: str) -> Served:
        if name not in made:
            made[name] = real_served(name) if name in REAL else tiny_served(name, tmp_path_factory.mktemp(name))
        return made[name]

    return by_name
