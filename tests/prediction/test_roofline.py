from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.platforms.catalog import find_platform, load_catalog
from flashhead_edge.prediction.coefficients import family_coefficients
from flashhead_edge.prediction.heads import two_stage_head
from flashhead_edge.prediction.limits import platform_limits
from flashhead_edge.prediction.roofline import predict_stage, predict_step
from flashhead_edge.prediction.shapes import BodyShape, HeadShape, ModelShape
from flashhead_edge.prediction.work import Work
from flashhead_edge.profiling.record import HEAD_STAGES, Profile, read_profile
from tests.prediction.heads import two_stage_heads

ORIN = find_platform("jetson-orin-nano-8gb")
X86 = find_platform("x86-cpu-avx512-vnni")
CPU_LIMITS = platform_limits(X86, bandwidth_gb_s=20, cores=2, clock_ghz=2.8)
GEMMA = ModelShape("gemma", 262_144, 640, BodyShape(18, 1, 256, 100_000_000, "int4"))
KNOWN = [platform.name for platform in load_catalog().platforms.values() if platform.memory_bandwidth_gb_s]


def predict(head, model=GEMMA, platform=ORIN, limits=None, **options):
    return predict_step(model, head, platform, limits or platform_limits(platform, cores=4, clock_ghz=2), **options)


def test_it_says_that_nothing_was_measured():
    profile = predict(two_stage_head(262_144))
    assert not profile.measured
    assert (profile.steps, profile.runtime, profile.taken_at) == (0, None, None)


def test_stages_of_a_step_add_up():
    profile = predict(two_stage_head(262_144))
    assert [stage.name for stage in profile.stages] == ["body", "centroids", "top-k", "gather + dot", "host"]
    assert profile.step_ms == pytest.approx(sum(stage.ms for stage in profile.stages))
    assert profile.head_ms == pytest.approx(sum(s.ms for s in profile.stages if s.name in HEAD_STAGES))


def test_a_stage_takes_the_longer_of_bytes_and_operations():
    reached = family_coefficients(X86)
    moving = 1e9 / (20 * reached.bandwidth_share) / 1e6
    computing = 1e12 / (CPU_LIMITS.operations_g_s["int8"] * reached.compute_share) / 1e6
    start = reached.stage_us / 1e3
    by_bytes = predict_stage(Work("centroids", 1e9, 1e6, "int8"), CPU_LIMITS, reached)
    by_operations = predict_stage(Work("centroids", 1e3, 1e12, "int8"), CPU_LIMITS, reached)
    assert (by_bytes.bound, by_operations.bound) == ("bandwidth", "compute")
    assert by_bytes.ms == pytest.approx(moving + start)
    assert by_operations.ms == pytest.approx(computing + start)


def test_unknown_peaks_bound_nothing():
    stage = predict_stage(Work("centroids", 1e9, 1e15, "int8"), replace(CPU_LIMITS, operations_g_s={}), _cpu())
    assert stage.bound is None
    assert stage.ms < 1e3


def test_layers_of_the_body_take_time_to_start():
    reached = _cpu()
    few, many = (predict_stage(Work("body", 1e6, 1e6, "int8"), CPU_LIMITS, reached, layers=n).ms for n in (1, 11))
    assert many - few == pytest.approx(10 * reached.layer_us / 1e3)


@pytest.mark.parametrize("name", KNOWN)
def test_every_platform_with_a_bandwidth_is_predicted(name):
    platform = find_platform(name)
    two_stage, dense = (predict(head, platform=platform) for head in (two_stage_head(262_144), HeadShape("dense")))
    assert 0 < two_stage.step_ms < dense.step_ms
    assert two_stage.platform == name


@given(two_stage_heads((None, "int8")), st.integers(1, 32), st.integers(1, 32))
def test_a_larger_batch_never_takes_less(head, first, second):
    vocab, shape = head
    model = replace(GEMMA, vocab_size=vocab)
    small, large = (_ms(shape, model, batch=batch) for batch in sorted((first, second)))
    assert small <= large + 1e-9


@given(two_stage_heads(), st.integers(1, 9000))
def test_more_probes_never_take_less(head, probes):
    vocab, shape = head
    other = replace(shape, num_probes=min(probes, shape.num_clusters))
    few, many = sorted((shape, other), key=lambda candidate: candidate.num_probes)
    assert _ms(few, replace(GEMMA, vocab_size=vocab)) <= _ms(many, replace(GEMMA, vocab_size=vocab)) + 1e-9


@given(two_stage_heads(), st.integers(1, 16), st.sampled_from(["jetson-agx-orin-64gb", "geforce-rtx-4090", "cpu"]))
def test_all_clusters_opened_are_never_predicted_cheaper_than_a_dense_head(head, batch, name):
    vocab, shape = head
    opened = replace(shape, num_probes=shape.num_clusters)
    model = ModelShape("rows", vocab, 640)
    dense = HeadShape("dense", shape.precision)
    platform, limits = (X86, CPU_LIMITS) if name == "cpu" else (find_platform(name), None)
    assert _ms(opened, model, platform, limits, batch=batch) >= _ms(dense, model, platform, limits, batch=batch)


@given(st.integers(1000, 500_000), st.integers(1000, 500_000), st.sampled_from(["fp32", "fp16", "int8", "int4"]))
def test_a_larger_vocabulary_never_takes_less(first, second, precision):
    small, large = sorted((first, second))
    times = [_ms(HeadShape("dense", precision), ModelShape("rows", vocab, 640)) for vocab in (small, large)]
    assert times[0] <= times[1]


@given(st.floats(1, 1000), st.floats(1, 1000))
def test_a_faster_memory_never_takes_longer(first, second):
    slow, fast = sorted((first, second))
    head = two_stage_head(262_144)
    times = [predict(head, platform=X86, limits=platform_limits(X86, bandwidth_gb_s=b)).step_ms for b in (slow, fast)]
    assert times[0] >= times[1]


def test_a_longer_context_takes_longer():
    head = two_stage_head(262_144)
    assert predict(head, positions=100).step_ms < predict(head, positions=8000).step_ms


def test_energy_is_at_most_the_greatest_power_for_the_whole_step():
    profile = predict(two_stage_head(262_144), batch=4)
    assert profile.energy_j_per_token == pytest.approx(15 * profile.step_ms / 1e3 / 4)
    assert profile.energy_source is not None
    assert "upper limit" in profile.energy_source


def test_energy_is_unknown_where_the_power_is():
    profile = predict(two_stage_head(262_144), platform=find_platform("geforce-rtx-3060-12gb"))
    assert profile.energy_j_per_token is profile.energy_source is None


def test_memory_of_a_model():
    memory = predict(two_stage_head(262_144), batch=2, positions=1000).memory
    assert memory.cache_bytes == 2 * 2 * 18 * 256 * 1000 * 2
    assert memory.weights_bytes is not None
    assert 262_144 * 640 * 2 < memory.weights_bytes < 262_144 * 640 * 2 + 100_000_000


def test_a_model_that_does_not_fit_is_said_so():
    large = replace(GEMMA, body=BodyShape(32, 8, 128, 20_000_000_000, "int8"))
    assert any("does not fit" in note for note in predict(two_stage_head(262_144), large).notes)
    assert not any("does not fit" in note for note in predict(two_stage_head(262_144)).notes)


@pytest.mark.parametrize(("platform", "judged"), [("raspberry-pi-5", "heads alone"), ("nvidia-l4", None)])
def test_an_error_says_what_it_was_judged_by(platform, judged):
    notes = [
        note for note in predict(two_stage_head(262_144), platform=find_platform(platform)).notes if "error" in note
    ]
    assert [judged in note for note in notes] == ([True] if judged else [])


@pytest.mark.parametrize("option", [{"batch": 0}, {"positions": -1}])
def test_what_cannot_be_is_refused(option):
    with pytest.raises(OptionError, match="out of range"):
        predict(two_stage_head(262_144), **option)


@pytest.mark.parametrize("head", [two_stage_head(262_144), HeadShape("dense", "int8")], ids=["two-stage", "dense"])
def test_the_record_can_be_read_again(head, tmp_path):
    profile = predict(head)
    file = tmp_path / "profile.json"
    file.write_text(profile.to_json())
    assert read_profile(file) == profile
    assert isinstance(profile, Profile)


def _cpu():
    return family_coefficients(X86)


def _ms(head, model, platform=X86, limits=CPU_LIMITS, **options):
    return predict(head, model, platform, limits, **options).step_ms
