"""A profile of a head on TensorRT, from the layer times that trtexec wrote on the same device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge._version import __version__
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.platforms.detection import DeviceFacts, detect
from flashhead_edge.platforms.matching import match_platform
from flashhead_edge.profiling import record
from flashhead_edge.profiling.costs import bound_of, rank_of, stage_costs
from flashhead_edge.profiling.model_facts import model_of
from flashhead_edge.profiling.tensorrt_layers import read_layers

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

_OTHER = "Layers that belong to no stage, such as copies between formats, count as the host's."


def engine_profile(
    bundle: Bundle, layers: Path, *, head: str, batch: int = 1, facts: DeviceFacts | None = None
) -> record.Profile:
    """Make a profile of an engine's head alone.

    Args:
        bundle: The bundle whose graph the engine was built of.
        layers: What ``trtexec --exportProfile`` wrote.
        head: "two-stage" or "dense".
        batch: B that the engine ran with.
        facts: The device that it ran on; this one by default.

    Returns:
        The profile, without a body, memory and energy.

    Raises:
        ProfileError: The file is not such a profile, or no layer is the head's.
    """
    found = read_layers(layers, head=head)
    facts = detect(try_providers=False) if facts is None else facts
    match = match_platform(facts)
    platform = find_platform(match.name) if match.name else None
    bandwidth = platform.memory_bandwidth_gb_s if platform else None
    peak = platform.peak_fp16_dense_tflops if platform else None
    operations = None if peak is None else 1e3 * peak
    costs = stage_costs(bundle.manifest, head=head, batch=batch, positions=0, rank=rank_of(bundle))
    stages = []
    for stage, ms in found.stages.items():
        cost = costs.get(stage)
        stages.append(
            record.Stage(
                stage,
                ms,
                cost.bytes if cost else None,
                cost.operations if cost else None,
                bound_of(cost, bandwidth, operations) if cost else None,
                source="TensorRT profiler",
            )
        )
    spanning = [f"{name} spans several stages and counts for its first." for name in found.spanning]
    gpu = facts.nvidia.gpus[0] if facts.nvidia.gpus else None
    jetson = facts.jetson
    mode = jetson.power_mode if jetson else None
    return record.Profile(
        platform=match.name,
        measured=True,
        stages=tuple(stages),
        memory=record.Memory(None, None),
        energy_j_per_token=None,
        step_ms=sum(stage.ms for stage in stages),
        model=model_of(bundle, head),
        machine=record.Machine(
            processor=(gpu.name if gpu else None) or (jetson.model if jetson else None) or facts.host.cpu_model,
            memory_bytes=(gpu.memory_bytes if gpu else None) or facts.host.memory_bytes,
            bandwidth_gb_s=bandwidth,
            bandwidth_source="catalogue" if bandwidth else None,
            operations_g_s=operations,
            operations_source="catalogue, fp16" if operations else None,
            power_mode=mode.name if mode else None,
            os=facts.host.os,
        ),
        created_by=f"flashhead-edge {__version__}",
        runtime="tensorrt",
        batch=batch,
        steps=found.iterations,
        notes=("The head alone, from the layer times of trtexec.", _OTHER, *spanning),
    )
