"""Metrics: counts are those of the texts."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flashhead_edge import Bundle, Generator
from flashhead_edge.metrics import BUCKETS, Recorder
from flashhead_edge.monitor import MonitorOptions
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.profiling.store import save_profile
from tests.profiling.profiles import MEASURED
from tests.tiny_bundle import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "tiny"))


def test_counts_are_those_of_the_texts(bundle: Bundle) -> None:
    generator = Generator(bundle, monitor=MonitorOptions(every=2), runtime="onnxruntime")
    first = generator.metrics
    assert (first.tokens, first.steps, first.step_ms_p50) == (0, 0, None)
    one = generator.generate("abc", max_new_tokens=6, min_tokens=6)
    two, three = generator.generate_batch(["a", "bcd"], max_new_tokens=4, min_tokens=4)
    metrics = generator.metrics
    assert metrics.generations == 3
    assert metrics.prompt_tokens == sum(text.prompt_tokens for text in (one, two, three))
    assert metrics.tokens == 6 + 4 + 4
    assert metrics.steps == 5 + 3  # a step of a batch is one
    assert sum(metrics.step_buckets) == metrics.steps
    assert metrics.prompt_seconds > 0
    assert metrics.step_ms_p50 is not None
    assert metrics.step_ms_p90 is not None
    assert metrics.step_ms_p99 is not None
    assert 0 < metrics.step_ms_p50 <= metrics.step_ms_p90 <= metrics.step_ms_p99 <= 1e3 * metrics.step_seconds
    assert metrics.recall is not None
    assert metrics.recall["steps"] == metrics.tokens
    assert first.tokens == 0  # a snapshot stays as it is
    assert json.loads(json.dumps(metrics.as_dict()))["tokens"] == 14


def test_buckets_and_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    for ms in range(1, 101):
        start, now = now, now + ms / 1e3
        recorder.ran(start, fed=1, is_prompt=False)
    metrics = recorder.snapshot()
    assert metrics.step_ms_p50 == pytest.approx(50, abs=1.01)
    assert metrics.step_ms_p90 == pytest.approx(90, abs=1.01)
    assert sum(metrics.step_buckets) == 100
    assert sum(metrics.step_buckets[: BUCKETS.index(0.05) + 1]) == pytest.approx(50, abs=1)
    assert metrics.step_buckets[-1] == 0


def test_the_text_for_prometheus(bundle: Bundle) -> None:
    generator = Generator(bundle, monitor=MonitorOptions(every=2), runtime="onnxruntime")
    generator.generate("abc", max_new_tokens=6, min_tokens=6)
    text = replace(generator.metrics, head_share=0.1).prometheus()
    assert re.search(r"^flashhead_edge_tokens_total 6$", text, re.MULTILINE)
    buckets = [int(count) for count in re.findall(r'_bucket\{le="[^"]+"\} (\d+)', text)]
    assert len(buckets) == len(BUCKETS) + 1
    assert buckets == sorted(buckets)
    assert buckets[-1] == 5
    assert "flashhead_edge_head_share 0.1\n" in text
    assert "flashhead_edge_agreement " in text
    line = re.compile(r"(# TYPE \w+ (counter|gauge|histogram)|\w+(\{le=\"[^\"]+\"\})? [0-9.e+-]+)")
    assert all(line.fullmatch(item) for item in text.splitlines())


def test_the_heads_share_comes_from_a_profile(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    here = replace(MEASURED, machine=replace(MEASURED.machine, processor=host_facts().cpu_model))
    assert Generator(bundle, runtime="onnxruntime").metrics.head_share is None
    save_profile(bundle, MEASURED)  # of another processor
    assert Generator(bundle, runtime="onnxruntime").metrics.head_share is None
    save_profile(bundle, replace(here, taken_at="2026-02-01T00:00:00+00:00"))
    assert Generator(bundle, runtime="onnxruntime").metrics.head_share == pytest.approx(here.head_share)
    assert Generator(bundle, head="dense", runtime="onnxruntime").metrics.head_share is None
    (bundle.path / "profiles" / "damaged.json").write_text("{}")
    with caplog.at_level("WARNING"):
        assert Generator(bundle, runtime="onnxruntime").metrics.head_share is None
    assert "damaged.json" in caplog.text
