"""Writes the two-stage head for TensorRT beside ``head.onnx``, and says what a builder must know of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flashhead_edge.errors import OptionError
from flashhead_edge.export.graph_files import save_graph
from flashhead_edge.export.head_graph import HeadTables
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.export.tensorrt_graph import Form, tensorrt_graph
from flashhead_edge.export.tensorrt_limits import check_limits
from flashhead_edge.export.tensorrt_rows import OPSETS, RowPrecision, Rows, check_precision, write_rows
from flashhead_edge.export.tensorrt_states import Int8States
from flashhead_edge.export.tensorrt_weights import weights_as_inputs
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.manifest import BatchProfile, TensorRtRecord

CENTROID_PRECISIONS: tuple[RowPrecision, ...] = ("fp32", "fp16", "int8", "fp8", "int4")
#: Not int4: TensorRT writes the gathered rows of larger heads to memory (21 MB a step for Llama 3.2 1B's shapes).
CLUSTER_PRECISIONS: tuple[RowPrecision, ...] = ("fp32", "fp16", "int8", "fp8")
#: From this batch on, stage 1 is a matrix product.
MATMUL_BATCH = 16
#: Types that a GPU must have, as the least compute capability; TensorRT for RTX refuses older ones when it builds.
_CAPABILITIES: dict[str, str] = {"fp8": "8.9", "int4": "8.0"}
_LEAST_CAPABILITY = "7.5"


@dataclass(frozen=True)
class TensorRtOptions:
    """How the head for TensorRT is written.

    Attributes:
        centroid_precision: Of stage 1, one of :data:`CENTROID_PRECISIONS`.
        cluster_precision: Of stage 2, one of :data:`CLUSTER_PRECISIONS`.
        max_batch: Greatest batch of an engine; from 16 on, stage 1 is a matrix product and engines are tuned for that.
        weight_inputs: Whether weights are inputs of the graph.
        int8_states: How states are rounded; only int8 centroids in a matrix product need it.
    """

    centroid_precision: RowPrecision = "int8"
    cluster_precision: RowPrecision = "fp16"
    max_batch: int = 8
    weight_inputs: bool = False
    int8_states: Int8States | None = None

    def __post_init__(self) -> None:
        """Refuse what does not build or does not fuse.

        Raises:
            OptionError: Names the option and what it can be.
        """
        check_precision("centroid", self.centroid_precision, CENTROID_PRECISIONS)
        check_precision("cluster", self.cluster_precision, CLUSTER_PRECISIONS)
        if self.max_batch < 1:
            raise OptionError("The greatest batch of a TensorRT engine is too small.", found=self.max_batch, expected=1)
        if self.weight_inputs and self.form == "matmul" and self.centroid_precision not in ("fp16", "fp32"):
            raise OptionError(
                "TensorRT copies quantized centroids at every step when they are inputs of a matrix product.",
                found=f"{self.centroid_precision} centroids, a batch of {self.max_batch}",
                expected=f"fp16 or fp32 centroids, or a batch below {MATMUL_BATCH}",
            )

    @property
    def form(self) -> Form:
        """Form of stage 1."""
        return "matmul" if self.max_batch >= MATMUL_BATCH else "reduce"

    @property
    def rounds_states(self) -> bool:
        """Whether stage 1 rounds states to int8."""
        return (self.form, self.centroid_precision) == ("matmul", "int8")

    @property
    def batch(self) -> BatchProfile:
        """The profile that engines are built for."""
        return batch_profile(self.max_batch)


def batch_profile(max_batch: int) -> BatchProfile:
    """Batches of an engine: tuned for one state, or, where stage 1 is a matrix product, for the greatest batch."""
    return BatchProfile(1, max_batch if max_batch >= MATMUL_BATCH else 1, max_batch)


def least_capability(*precisions: str) -> str:
    """Compute capability from which a GPU has all these types."""
    return max((_CAPABILITIES.get(name, _LEAST_CAPABILITY) for name in precisions), key=float)


def write_tensorrt_head(
    folder: Path, tables: HeadTables, index: HeadIndex, options: TensorRtOptions, *, name: str
) -> TensorRtRecord:
    """Write the graph, and beside it the tensors that ``head.onnx.data`` does not hold in these precisions.

    Args:
        folder: Where ``head.onnx.data`` lies.
        tables: The tables in it.
        index: The head's index, for its centroids.
        options: Precisions, batch, and where the weights go.
        name: File name of the graph; its data file has ``.data`` after it.

    Returns:
        What the manifest says of the graph.

    Raises:
        OptionError: The head passes a limit of TensorRT, or int4 does not fit its hidden size.
    """
    total, size, width = tables.rows.shape
    check_limits(
        num_probes=tables.num_probes,
        num_clusters=tables.num_clusters,
        table=(total, size, width),
        batch=options.max_batch,
    )
    how = options.int8_states if options.rounds_states else None
    with DataFile(folder / f"{name}.data") as data:
        centroids = write_rows(
            data,
            "head.tensorrt.centroids",
            index.centroids,
            options.centroid_precision,
            block_scales="float16" if options.form == "matmul" else "float32",
            factors=None if how is None else how.divisors,
        )
        rows = Rows(options.cluster_precision, tables.rows.data)
        if (options.cluster_precision, tables.rows.data.dtype) not in (("fp16", "float16"), ("fp32", "float32")):
            table = tables.rows.read(folder).floats()
            rows = write_rows(data, "head.tensorrt.rows", table, options.cluster_precision)
    model = tensorrt_graph(tables, centroids, rows, form=options.form, int8_states=how)
    weights: dict[str, TensorRef] = {}
    if options.weight_inputs:
        found = (centroids.codes, centroids.scales, rows.codes, rows.scales, tables.token_order, tables.row_bias)
        known = {ref.name: ref for ref in (*found, tables.centroid_bias, tables.selection_offset) if ref is not None}
        weights = {weight: known[weight] for weight in weights_as_inputs(model)}
    save_graph(model, folder / name)
    precisions = (options.centroid_precision, options.cluster_precision)
    return TensorRtRecord(
        form=options.form,
        centroid_precision=options.centroid_precision,
        cluster_precision=options.cluster_precision,
        opset=max(OPSETS[precision] for precision in precisions),
        least_compute_capability=least_capability(*precisions),
        batch=options.batch,
        weights={weight: ref.record() for weight, ref in weights.items()},
    )
