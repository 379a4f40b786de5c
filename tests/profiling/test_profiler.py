"""Profiles of a tiny model, taken for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flashhead_edge import Bundle, native
from flashhead_edge.errors import BundleError, OptionError, ProfileError
from flashhead_edge.profiling import profiler, record
from flashhead_edge.profiling.formats import format_profile
from flashhead_edge.profiling.onnxruntime_trace import read_runs
from flashhead_edge.profiling.options import ProfileOptions
from flashhead_edge.profiling.profiler import BODY_UNKNOWN, take_profile
from flashhead_edge.profiling.store import profiles_of, save_profile
from tests.profiling.profiles import MEASURED, PREDICTED
from tests.tiny_bundle import write_bundle

TWO_STAGE = {record.BODY, record.CENTROIDS, record.TOP_K, record.GATHER_DOT, record.SAMPLING, record.HOST}


def check_times(profile: record.Profile) -> None:
    assert profile.measured
    assert profile.step_ms > 0
    assert all(stage.ms >= 0 for stage in profile.stages)
    if BODY_UNKNOWN not in profile.notes:  # other programs may slow down the profiled steps of a tiny model
        # Medians of parts add up to about the median of the whole.
        assert 0.5 * profile.step_ms < sum(stage.ms for stage in profile.stages) < 2 * profile.step_ms
    assert profile.overhead is not None
    assert profile.overhead.plain_ms == profile.step_ms
    assert profile.overhead.profiled_ms > 0


@pytest.mark.parametrize("use_native", [True, False])
def test_the_two_stage_head(
    use_native: bool, whole_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    if use_native and not native.is_available():
        pytest.skip(f"no native library: {native.unavailable_because()}")
    monkeypatch.setenv(native.SWITCH, str(int(use_native)))
    profile = take_profile(whole_bundle(), ProfileOptions(tokens=10, rounds=3))
    check_times(profile)
    assert {stage.name for stage in profile.stages} == TWO_STAGE
    assert profile.steps == 10
    assert "profiler saw" in profile.notes[0]
    centroids = profile.stage(record.CENTROIDS)
    assert centroids is not None
    assert centroids.source == ("clock in the operator" if use_native else "onnxruntime profiler")
    assert centroids.ms > 0
    assert centroids.bound in ("bandwidth", "compute")
    assert profile.model.num_clusters == whole_bundle().manifest.index.num_clusters
    assert profile.machine.bandwidth_gb_s is not None
    assert profile.memory.peak_rss_bytes is not None
    resident = [sample.rss_bytes for sample in profile.memory.samples]
    assert 0 < max(resident) <= profile.memory.peak_rss_bytes
    times = [sample.seconds for sample in profile.memory.samples]
    assert times == sorted(times)
    assert {sample.phase for sample in profile.memory.samples} == {"open", "decode"}


def test_the_dense_head(whole_bundle: Callable[..., Bundle]) -> None:
    profile = take_profile(whole_bundle(), ProfileOptions(head="dense", tokens=8, rounds=1))
    check_times(profile)
    assert {stage.name for stage in profile.stages} == {record.BODY, record.DENSE_HEAD, record.SAMPLING, record.HOST}
    assert profile.model.num_clusters is None
    assert profile.model.agreement == 1.0


def test_a_head_that_profiling_slows_down_leaves_no_negative_body(
    whole_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_runs(path: Path, *, head: str) -> list[dict[str, float]]:
        return [{name: 1000 * ms for name, ms in run.items()} for run in read_runs(path, head=head)]

    monkeypatch.setattr(profiler, "read_runs", slow_runs)
    monkeypatch.setenv(native.SWITCH, "0")  # whose operator has a clock of its own
    profile = take_profile(whole_bundle(), ProfileOptions(head="dense", tokens=8, rounds=1))
    body = profile.stage(record.BODY)
    assert body is not None
    assert body.ms == 0
    assert BODY_UNKNOWN in profile.notes
    assert f"note: {BODY_UNKNOWN}" in format_profile(profile)


def test_series_of_the_head(whole_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    options = ProfileOptions(tokens=8, rounds=1, scaling=True)
    bundle = whole_bundle()
    if native.is_available():
        points = take_profile(bundle, options).head_points
        assert {point.varied for point in points} == {"probes", "batch", "clusters", "vocabulary"}
        assert all(point.head_ms > 0 for point in points)
        agreement = [point.agreement for point in points if point.varied == "probes"]
        assert all(value is not None and 0 <= value <= 1 for value in agreement)
        vocabularies = [point.vocab_size for point in points if point.varied == "vocabulary"]
        assert vocabularies == sorted(vocabularies)
    monkeypatch.setenv(native.SWITCH, "0")
    with pytest.raises(ProfileError, match="native library"):
        take_profile(bundle, options)


def test_a_profile_in_the_bundle_leaves_its_hashes_alone(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    assert profiles_of(bundle) == []
    path = save_profile(bundle, MEASURED)
    assert path.parent == bundle.path / "profiles"
    assert path.name == "x86-cpu-avx512-vnni.two-stage.20260102T030405.json"
    save_profile(bundle, PREDICTED)
    assert Bundle.open(bundle.path) == bundle  # with every hash checked
    assert profiles_of(bundle) == [PREDICTED, MEASURED]
    path.write_text("{}")
    with pytest.raises(ProfileError, match=path.name):
        profiles_of(bundle)


def test_what_cannot_be_profiled(tmp_path: Path, whole_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(BundleError, match="no body"):
        take_profile(Bundle.open(write_bundle(tmp_path / "bundle", has_body=False)), ProfileOptions())
    with pytest.raises(OptionError, match="context"):
        take_profile(whole_bundle(), ProfileOptions(tokens=5000))


@pytest.mark.parametrize(
    "options", [{"head": "dnese"}, {"tokens": 1}, {"threads": 0}, {"rounds": 0}, {"head": "dense", "scaling": True}]
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        ProfileOptions(**options)  # type: ignore[arg-type]
