"""Documents whose schema is a dataclass: the kinds of values that the manifest's own tests do not have."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest

from flashhead_edge.errors import ProfileError
from flashhead_edge.typed_json import JsonDocument

DOCUMENT = JsonDocument("thing.json", 3, ProfileError, "make it again")


@dataclass(frozen=True)
class Part:
    name: str
    size: int | None = None


@dataclass(frozen=True)
class Thing:
    kind: Literal["one", "other"]
    parts: tuple[Part, ...]
    sizes: dict[str, float]
    mood: Literal["good", "bad"] | None
    schema_version: int = 3


THING = Thing("one", (Part("a", 1), Part("b")), {"x": 1.5, "y": 2.0}, None)


def read(**change: Any) -> Thing:
    return DOCUMENT.read(Thing, json.dumps({**asdict(THING), **change}))


def test_what_is_written_is_read() -> None:
    assert read() == THING
    assert read(mood="bad").mood == "bad"
    assert read(parts=[{"name": "a"}]).parts == (Part("a"),)  # a field whose default is None may be missing


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": "third"}, "kind has the wrong type or value"),
        ({"mood": 3}, "mood"),
        ({"parts": {"name": "a"}}, "parts"),
        ({"parts": [{"size": 1}]}, "no 'name'"),
        ({"parts": [{"name": "a", "size": True}]}, r"parts\[0\].size"),
        ({"sizes": {"x": "wide"}}, "sizes.x"),
        ({"schema_version": 2}, "version 2"),
        ({"extra": 1}, "unknown 'extra'"),
    ],
)
def test_anything_else_is_refused_by_name(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ProfileError, match=complaint):
        read(**change)
