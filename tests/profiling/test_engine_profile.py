"""Profiles of engines: the layer times of trtexec, the device that they are from, and its peaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flashhead_edge import Bundle
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.platforms.detection import detect
from flashhead_edge.platforms.nvidia import GpuFacts, NvidiaFacts
from flashhead_edge.profiling import record
from flashhead_edge.profiling.costs import stage_costs
from flashhead_edge.profiling.engine_profile import engine_profile


def test_a_head_on_a_gpu(whole_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    names = ("/head/centroids/ReduceSum", "/head/select/TopK", "/head/logits/MatMul", "Reformatting 3")
    layers = [{"name": name, "timeMs": 2.0, "averageMs": 0.02, "percentage": 25.0} for name in names]
    path.write_text(json.dumps([{"count": 100}, *layers]))
    gpu = GpuFacts(name="NVIDIA GeForce RTX 4090", memory_bytes=24 << 30)
    facts = replace(detect(environ={}, try_providers=False), nvidia=NvidiaFacts(gpus=(gpu,)), jetson=None)
    bundle = whole_bundle()
    profile = engine_profile(bundle, path, head="two-stage", batch=2, facts=facts)
    platform = find_platform("geforce-rtx-4090")
    assert profile.platform == platform.name
    assert profile.machine.processor == gpu.name
    assert profile.machine.bandwidth_gb_s == platform.memory_bandwidth_gb_s
    assert [stage.name for stage in profile.stages] == [
        record.CENTROIDS,
        record.TOP_K,
        record.GATHER_DOT,
        record.HOST,
    ]
    assert profile.step_ms == pytest.approx(0.08)
    assert (profile.steps, profile.batch, profile.measured) == (100, 2, True)
    costs = stage_costs(bundle.manifest, head="two-stage", batch=2, positions=0)
    centroids = profile.stage(record.CENTROIDS)
    assert centroids is not None
    assert (centroids.bytes, centroids.operations) == (costs["centroids"].bytes, costs["centroids"].operations)
    assert centroids.bound in ("bandwidth", "compute")
