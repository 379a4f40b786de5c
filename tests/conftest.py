"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny model's folder by kind and options, as ``save_tiny_model`` takes them; saved once, not to be changed."""
    folders: dict[Any, Path] = {}

    def folder_of(kind: str, **options: Any) -> Path:
        from tiny_models import save_tiny_model

        key = (kind, *sorted((name, str(value)) for name, value in options.items()))
        if key not in folders:
            folders[key] = save_tiny_model(kind, tmp_path_factory.mktemp(kind) / f"tiny-{kind}", **options)
        return folders[key]

    return folder_of


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on any attempt to look up or reach another machine."""
    import socket

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
