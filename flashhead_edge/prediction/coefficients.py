"""What programs reach of a platform's limits, by family: few numbers, fitted once, none of them for a single case.

``benchmarks/prediction.py`` and ``benchmarks/published_speed.py`` fit them and write the fits to
``benchmarks/results``, with what they were fitted to; a test compares. Nothing that predictions are judged by was used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flashhead_edge.prediction.shapes import Blocks

if TYPE_CHECKING:
    from flashhead_edge.platforms.catalog import Platform


@dataclass(frozen=True)
class Coefficients:
    """What a family reaches.

    Attributes:
        bandwidth_share: Of the bandwidth, by what reads weights in one run: body, centroids, a dense head.
        gather_share: Of the bandwidth, by what reads opened clusters.
        compute_share: Of the peak of operations, by all stages.
        copy_share: Bytes that operators hand to each other count this much of bytes from memory, as caches hold part.
        compare_ns: For each number among which the greatest are sought, nanoseconds. On CPUs from the top-k of 8,192
            scores inside the native operator, 0.02 ms by ``flashhead-edge profile``.
        stage_us: To start a stage of the head, microseconds.
        layer_us: To start everything that a layer of the body runs, microseconds.
        step_us: Of a step outside the graph, microseconds.
        blocks: How low-bit weights are stored.
        widened: Whether gathered rows become float32 before they are multiplied.
        halves: Whether int8 centroids and rows are read by half, as the native library does in greedy steps.
        cache_item_bytes: Bytes of a number in the key-value cache.
        runtime_bytes: Memory of the process without any model; None where unknown.
        fitted_to: What the numbers come from, for people.
        relative_error: By which share predictions were off at worst in 9 of 10 cases that nothing was fitted to; None
            where there were none.
        judged_by: What those cases were, for people.
        standard_layer_us: ``layer_us`` of a body of standard operators, which a head of such has; None for the same.
    """

    bandwidth_share: float
    gather_share: float
    compute_share: float
    copy_share: float
    compare_ns: float
    stage_us: float
    layer_us: float
    step_us: float
    blocks: Blocks
    widened: bool
    halves: bool
    cache_item_bytes: int
    runtime_bytes: int | None
    fitted_to: str
    relative_error: float | None
    judged_by: str = "steps of whole models, batch 1"
    standard_layer_us: float | None = None


#: vLLM stores int4 weights in groups of 128, with a half-precision scale and a zero point of four bits.
_GPU_BLOCKS = Blocks(128, 2.5)

_CPU = Coefficients(
    bandwidth_share=0.708,
    gather_share=0.588,
    compute_share=0.0872,
    copy_share=0.34,
    compare_ns=2.5,
    stage_us=0.0,
    layer_us=38.0,
    step_us=358.0,
    blocks=Blocks(),
    widened=True,
    halves=True,
    cache_item_bytes=4,
    runtime_bytes=120 << 20,
    fitted_to="heads of 65,536 x 1,024 and 16,384 x 256, and SmolLM2's body, on 2 x86 cores with AVX-512.",
    relative_error=0.157,
    judged_by="other heads alone, and steps of Gemma 3 270M",
    standard_layer_us=158.0,
)
_JETSON = Coefficients(
    bandwidth_share=0.817,
    gather_share=0.817,
    compute_share=0.5,
    copy_share=1.0,
    compare_ns=0.0,
    stage_us=10.0,
    layer_us=82.8,
    step_us=0.0,
    blocks=_GPU_BLOCKS,
    widened=False,
    halves=False,
    cache_item_bytes=2,
    runtime_bytes=None,
    fitted_to="published steps of dense heads on Jetson AGX Orin and Thor.",
    relative_error=0.235,
)
_GPU = replace(
    _JETSON,
    bandwidth_share=0.943,
    gather_share=0.943,
    layer_us=67.8,
    fitted_to="published steps of dense heads on an RTX 3500 Ada.",
    relative_error=0.162,
)
_FAMILIES = {"cpu": _CPU, "jetson": _JETSON, "geforce": _GPU}


def family_coefficients(platform: Platform) -> Coefficients:
    """What a platform's family reaches.

    Nothing was fitted to the other families: they borrow the numbers of CPUs where ONNX Runtime's CPU provider is what
    they are for, else those of GeForce, and claim no error.
    """
    fitted = _FAMILIES.get(platform.family)
    if fitted is not None:
        return fitted
    borrowed = _CPU if platform.providers[:1] == ("CPUExecutionProvider",) else _GPU
    return replace(borrowed, relative_error=None, fitted_to=f"no {platform.family} was seen: {borrowed.fitted_to}")
