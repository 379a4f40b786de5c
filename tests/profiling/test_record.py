"""Profiles: what is written is read, whatever does not follow the schema is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.errors import ProfileError
from flashhead_edge.profiling.record import Profile, read_profile
from tests.profiling.profiles import MEASURED, PREDICTED


@pytest.mark.parametrize("profile", [MEASURED, PREDICTED])
def test_a_profile_survives_its_file(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(profile.to_json(), encoding="utf-8")
    assert read_profile(path) == profile


def test_the_keys_that_other_programs_rely_on_are_there() -> None:
    document = json.loads(MEASURED.to_json())
    assert next(iter(document)) == "schema_version"
    assert {"platform", "measured", "stages", "memory", "energy_j_per_token"} <= document.keys()
    assert document["platform"] == "x86-cpu-avx512-vnni"
    assert document["measured"] is True
    assert {"name", "ms", "bytes", "operations", "bound"} <= document["stages"][0].keys()


def test_what_follows_from_the_figures() -> None:
    assert MEASURED.head_ms == pytest.approx(0.85)
    assert MEASURED.head_share == pytest.approx(0.85 / 3.97)
    assert replace(MEASURED, batch=4, step_ms=8.0).tokens_per_second == pytest.approx(500)
    body, top_k = MEASURED.stage("body"), MEASURED.stage("top-k")
    assert body is not None
    assert body.bandwidth_gb_s == pytest.approx(20.0)
    assert top_k is not None
    assert top_k.bandwidth_gb_s is None
    assert MEASURED.stage("dense head") is None
    assert MEASURED.overhead is not None
    assert MEASURED.overhead.ratio == pytest.approx(4.1 / 3.9)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 2}, "version 2"),
        ({"measured": "yes"}, "measured"),
        ({"stages": [{"name": "body"}]}, "no 'ms'"),
        ({"stages": [{"name": "body", "ms": 1.0, "bound": "luck"}]}, r"bound"),
        ({"surprise": 1}, "unknown 'surprise'"),
    ],
)
def test_what_does_not_follow_the_schema_is_refused(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**MEASURED.as_dict(), **change}), encoding="utf-8")
    with pytest.raises(ProfileError, match=complaint):
        read_profile(path)


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ProfileError, match="UTF-8"):
        read_profile(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ProfileError, match="schema_version"):
        read_profile(path)
