"""The prediction: each stage takes as long as the slower of its bytes and its operations, and starting it takes time.

    time = max(bytes / (bandwidth x share), operations / (peak x share)) + overhead

Source: Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", CACM 52(4), 2009. The shares and overheads are those of the platform's family, see :mod:`coefficients`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from flashhead_edge._version import __version__
from flashhead_edge.errors import OptionError
from flashhead_edge.prediction.coefficients import Coefficients, family_coefficients
from flashhead_edge.prediction.limits import Limits
from flashhead_edge.prediction.shapes import DENSE, TWO_STAGE, HeadShape, ModelShape
from flashhead_edge.prediction.work import Work, body_work, head_work, weights_bytes
from flashhead_edge.profiling.record import BODY, GATHER_DOT, HOST, Machine, Memory, Model, Profile, Stage

if TYPE_CHECKING:
    from flashhead_edge.platforms.catalog import Platform


def predict_step(
    model: ModelShape,
    head: HeadShape,
    platform: Platform,
    limits: Limits,
    *,
    batch: int = 1,
    positions: int = 512,
    reached: Coefficients | None = None,
) -> Profile:
    """Predict a decode step.

    Args:
        model: The model; without a body, the head alone is predicted.
        head: Its head.
        platform: Where it runs.
        limits: Of the platform, see :func:`~flashhead_edge.prediction.limits.platform_limits`.
        batch: B, texts side by side.
        positions: Tokens of each in the cache.
        reached: What programs reach of the limits, where it is not what the platform's family does.

    Returns:
        A profile that says it is not measured. Energy is an upper limit, from the greatest power of the platform.

    Raises:
        OptionError: Batch or positions are out of range.
    """
    for name, value, least in (("batch", batch, 1), ("number of positions", positions, 0)):
        if value < least:
            raise OptionError(f"The {name} is out of range.", found=value, expected=f"{least} or more")
    reached = reached or family_coefficients(platform)
    work = head_work(
        model.vocab_size,
        model.hidden_size,
        head,
        batch=batch,
        blocks=reached.blocks,
        widened=reached.widened,
        halves=reached.halves,
    )
    if model.body is not None:
        body = body_work(
            model.body,
            batch=batch,
            positions=positions,
            blocks=reached.blocks,
            cache_item_bytes=reached.cache_item_bytes,
        )
        work = [body, *work]
    layers = 0 if model.body is None else model.body.num_layers
    own = reached
    if head.kind == TWO_STAGE and not head.fused and reached.standard_layer_us is not None:
        own = replace(reached, layer_us=reached.standard_layer_us)
    stages = [predict_stage(part, limits, own, layers=layers) for part in work]
    stages.append(Stage(HOST, reached.step_us / 1e3))
    step_ms = sum(stage.ms for stage in stages)
    memory = _memory(model, head, reached, batch=batch, positions=positions)
    power = platform.max_power_watts
    return Profile(
        platform=platform.name,
        measured=False,
        stages=tuple(stages),
        memory=memory,
        energy_j_per_token=None if power is None else power * step_ms / 1e3 / batch,
        step_ms=step_ms,
        model=_model(model, head),
        machine=_machine(platform, limits),
        created_by=f"flashhead-edge {__version__}",
        batch=batch,
        positions=positions if model.body is not None else None,
        energy_source=None if power is None else f"upper limit: {power:g} W for the whole step",
        relative_error=reached.relative_error,
        notes=tuple(_notes(platform, limits, reached, memory)),
    )


def predict_stage(work: Work, limits: Limits, reached: Coefficients, *, layers: int = 0) -> Stage:
    """Predict one stage.

    Args:
        work: What it needs.
        limits: Of the platform.
        reached: What programs reach of them.
        layers: Layers of the body, where the stage is the body.

    Returns:
        The stage, with what limits it.
    """
    share = reached.gather_share if work.stage == GATHER_DOT else reached.bandwidth_share
    moved = work.bytes + reached.copy_share * work.copied_bytes
    moving_ms = moved / (limits.stream_gb_s * share) / 1e6
    peak = limits.peak(work.precision)
    computing_ms = 0.0 if peak is None else work.operations / (peak * reached.compute_share) / 1e6
    comparing_ms = work.compared * reached.compare_ns / 1e6
    start_ms = (layers * reached.layer_us if work.stage == BODY else reached.stage_us) / 1e3
    bound: Literal["bandwidth", "compute"] | None = None
    if work.bytes and peak is not None:
        bound = "bandwidth" if moving_ms >= computing_ms else "compute"
    return Stage(
        work.stage,
        max(moving_ms, computing_ms) + comparing_ms + start_ms,
        bytes=round(work.bytes) or None,
        operations=round(work.operations) or None,
        bound=bound,
    )


def _memory(model: ModelShape, head: HeadShape, reached: Coefficients, *, batch: int, positions: int) -> Memory:
    """Weights and cache; how much of the mapped weights will be resident at a time is not predicted."""
    weights = weights_bytes(model, head, reached.blocks)
    cache = None if model.body is None else batch * model.body.cache_bytes(positions, reached.cache_item_bytes)
    return Memory(weights, cache)


def _notes(platform: Platform, limits: Limits, reached: Coefficients, memory: Memory) -> list[str]:
    """What must be known to read the figures."""
    notes = [f"Shares of the limits come from {reached.fitted_to}"]
    needed = (memory.weights_bytes or 0) + (memory.cache_bytes or 0) + (reached.runtime_bytes or 0)
    itself = "and the process itself" if reached.runtime_bytes is not None else "without what the runtime itself takes"
    notes.append(f"Memory: at most {needed / 1e6:,.0f} MB will be resident, weights and cache, {itself}.")
    if platform.memory_bytes is not None and needed > platform.memory_bytes:
        notes.append(f"That does not fit into the platform's {platform.memory_bytes / 2**30:g} GiB.")
    if reached.relative_error is not None:
        notes.append(f"The error stated is that of {reached.judged_by}.")
    if not limits.operations_g_s:
        notes.append("No peak of operations is known here, so the times are those of the bytes alone.")
    elif limits.operations_source != "catalogue":
        notes.append(f"Peak of operations: {limits.operations_source}.")
    return notes


def _model(model: ModelShape, head: HeadShape) -> Model:
    return Model(
        name=model.name,
        head=head.kind,
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        num_clusters=None if head.kind == DENSE else head.num_clusters,
        cluster_size=None if head.kind == DENSE else head.cluster_size,
        num_probes=None if head.kind == DENSE else head.num_probes,
        head_precision=head.precision,
        centroid_precision=head.centroid_precision,
        body_precision=None if model.body is None else model.body.precision,
        agreement=head.agreement,
    )


def _machine(platform: Platform, limits: Limits) -> Machine:
    return Machine(
        processor=platform.title,
        memory_bytes=platform.memory_bytes,
        bandwidth_gb_s=limits.bandwidth_gb_s,
        bandwidth_source=limits.bandwidth_source,
        operations_g_s=limits.peak("int8"),
        operations_source=limits.operations_source,
        isa_features=platform.isa_features,
    )
