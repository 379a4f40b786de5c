from __future__ import annotations

import pytest

from flashhead_edge.errors import RuntimeUnavailableError
from flashhead_edge.runtimes.tensorrt.generations import generation_of


@pytest.mark.parametrize(
    ("backend", "version", "name", "strongly_typed", "most_opset"),
    [
        ("tensorrt", "8.6.1", "tensorrt 8", False, 17),
        ("tensorrt", "10.0.1", "tensorrt 10", True, None),
        ("tensorrt", "10.16.1.11", "tensorrt 10", True, None),
        ("tensorrt", "11.4.0.106", "tensorrt 11", True, None),
        ("tensorrt", "12.0.0", "tensorrt 11", True, None),
        ("tensorrt-rtx", "1.7.1.116", "tensorrt-rtx 1", True, None),
    ],
)
def test_generations(backend: str, version: str, name: str, strongly_typed: bool, most_opset: int | None) -> None:
    found = generation_of(backend, version)
    assert (found.name, found.strongly_typed, found.most_opset) == (name, strongly_typed, most_opset)


@pytest.mark.parametrize("version", ["7.2.3", "8.5.3.1", "9.3.0"])
def test_versions_that_are_not_supported(version: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match=rf"found: {version}\n  expected: 8.6, 10 or 11"):
        generation_of("tensorrt", version)
