"""Stage 2 as a quick deployable plugin of TensorRT 10.16 and newer, from kernels compiled ahead of time.

TensorRT embeds the PTX in the engine: Python is needed to build it, not to run it. Not run on a device yet, nor built
by a real TensorRT: see docs/kernels.md for what was checked.
"""

# No postponed annotations: TensorRT reads the annotations of what it registers as types.

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flashhead_edge.errors import BundleError, OptionalDependencyError
from flashhead_edge.kernels.block_sizes import CANDIDATES
from flashhead_edge.kernels.compile import MANIFEST

PLUGIN = "flashhead_edge::score_candidates"


def launch_sizes(probes: Sequence[Any], rows: Sequence[Any], num_clusters: Any, has_bias: Any) -> tuple[list[Any], Any]:
    """A launch of ``score_candidates`` from shapes of integers, or of TensorRT's symbolic ones.

    Args:
        probes: [B, P].
        rows: [T, C, H].
        num_clusters: K.
        has_bias: Whether ``row_bias`` counts, 0 or 1.

    Returns:
        The kernel's integers in their order, and the number of blocks.
    """
    opened = probes[1] + rows[0] - num_clusters
    block = CANDIDATES["BLOCK_C"]
    return [rows[2], rows[1], probes[1], num_clusters, opened, has_bias], (opened * rows[1] + (block - 1)) // block


def register_plugin(folder: Path, target: str) -> None:
    """Register the plugin ``flashhead_edge::score_candidates`` with TensorRT.

    Its inputs are those of the kernel: states [B, H] float32, probes [B, P] int32, rows [T, C, H] int8, float16,
    bfloat16 or float32, row_scales and row_bias [T, C] float32, token_order [T, C] int32, activation [3] float32. Its
    attributes are ``num_clusters`` and ``has_bias``; its outputs candidate ids [B, M] int64, logits [B, M] float32, and
    the best key of every block, [B, blocks] int64.

    Args:
        folder: What :func:`flashhead_edge.kernels.compile.compile_kernels` wrote.
        target: Kind of GPU that the engine is for, such as "sm_87".

    Raises:
        OptionalDependencyError: TensorRT is not installed, or too old for such plugins.
        BundleError: The folder holds no kernels for the target.
    """
    try:
        import tensorrt as trt
        import tensorrt.plugin as trtp
    except ImportError as error:
        raise OptionalDependencyError("tensorrt.plugin", "tensorrt", "The TensorRT plugin") from error
    find = _kernels(folder, target)
    types = {trt.int8: "i8", trt.float16: "fp16", trt.bfloat16: "bf16", trt.float32: "fp32"}

    def describe(
        states: trtp.TensorDesc,
        probes: trtp.TensorDesc,
        rows: trtp.TensorDesc,
        row_scales: trtp.TensorDesc,
        row_bias: trtp.TensorDesc,
        token_order: trtp.TensorDesc,
        activation: trtp.TensorDesc,
        num_clusters: int,
        has_bias: int,
    ) -> tuple[trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc]:
        batch = probes.shape_expr[0]
        integers, parts = launch_sizes(probes.shape_expr, rows.shape_expr, num_clusters, has_bias)
        candidates = integers[4] * integers[1]
        return (
            trtp.from_shape_expr((batch, candidates), dtype=trt.int64),
            trtp.from_shape_expr((batch, candidates), dtype=trt.float32),
            trtp.from_shape_expr((batch, parts), dtype=trt.int64),
        )

    def compiled(
        states: trtp.TensorDesc,
        probes: trtp.TensorDesc,
        rows: trtp.TensorDesc,
        row_scales: trtp.TensorDesc,
        row_bias: trtp.TensorDesc,
        token_order: trtp.TensorDesc,
        activation: trtp.TensorDesc,
        num_clusters: int,
        has_bias: int,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
        kernel, ptx = find(f"score_candidates-{types[rows.dtype]}")
        integers, parts = launch_sizes(probes.shape_expr, rows.shape_expr, num_clusters, has_bias)
        launch = trtp.KernelLaunchParams()
        launch.grid_x, launch.grid_y = parts, probes.shape_expr[0]
        launch.block_x, launch.shared_mem = kernel["threads"], kernel["shared_bytes"]
        arguments = trtp.SymIntExprs(len(integers))
        for place, integer in enumerate(integers):
            arguments[place] = trtp.SymInt32(integer)
        return kernel["entry"], ptx, launch, arguments

    trtp.register(PLUGIN)(describe)
    trtp.aot_impl(PLUGIN)(compiled)


def _kernels(folder: Path, target: str) -> Callable[[str], tuple[dict[str, Any], str]]:
    """Finds a build's description and PTX."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "python -m flashhead_edge.kernels.compile -o FOLDER"
        raise BundleError(f"{folder} holds no compiled kernels.", found=error, hint=hint) from error
    kernels = {item["build"]: item for item in manifest["kernels"] if item["target"] == target}
    if not kernels:
        known = ", ".join(sorted({item["target"] for item in manifest["kernels"]}))
        raise BundleError(f"{folder} holds no kernels for {target}.", found=known, expected=target)
    return lambda build: (kernels[build], (folder / kernels[build]["ptx"]["file"]).read_text(encoding="utf-8"))
