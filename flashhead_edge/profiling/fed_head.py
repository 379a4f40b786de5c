"""The native head as an operator that is fed its tables: any part of a bundle's own, read where it is mapped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout, native
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.quantize import high_nibbles, quantize_rows
from flashhead_edge.row_table import RowTable
from flashhead_edge.runtimes.reference import CENTROID_BITS

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

_Float32 = npt.NDArray[np.float32]
_WARM_UP = 3


@dataclass(frozen=True)
class FedTables:
    """What the operator reads, by its inputs; C slots a cluster, T - K clusters always opened."""

    centroids: npt.NDArray[Any]
    scales: npt.NDArray[np.float16] | None
    high: npt.NDArray[np.uint8] | None
    bias: _Float32
    offset: _Float32
    table: RowTable
    token_order: npt.NDArray[np.int32]
    projection: _Float32 | None = None

    @classmethod
    def from_bundle(cls, bundle: Bundle, index: HeadIndex) -> FedTables:
        """The tables of a bundle; centroids in the precision of its graphs."""
        bits = CENTROID_BITS[bundle.manifest.index.centroid_precision]
        scales = high = None
        if bits == 32:
            centroids: npt.NDArray[Any] = np.ascontiguousarray(index.narrow_centroids.T)
        else:
            quantized = quantize_rows(index.narrow_centroids, bits)
            centroids, scales = quantized.codes, quantized.scales
            if bits == 8:
                high = high_nibbles(quantized)
        return cls(
            centroids,
            scales,
            high,
            index.centroid_bias.astype(np.float32),
            index.selection_offset.astype(np.float32),
            bundle.rows(),
            np.ascontiguousarray(index.token_order, np.int32),
            None if index.projection is None else np.ascontiguousarray(index.projection, np.float32),
        )

    def first(self, clusters: int) -> FedTables:
        """The first clusters, none always opened."""
        cut = slice(None, clusters)
        centroids = self.centroids[:, cut].copy() if self.scales is None else self.centroids[cut]
        return FedTables(
            centroids,
            None if self.scales is None else self.scales[cut],
            None if self.high is None else self.high[cut],
            self.bias[cut],
            self.offset[cut],
            self.table.first(clusters),
            self.token_order[cut],
            self.projection,
        )

    def joined(self, count: int) -> FedTables:
        """Every ``count`` neighbours one cluster, none always opened."""
        clusters = len(self.bias) // count
        size = self.table.shape[1]
        part, every = slice(clusters * count), slice(0, clusters * count, count)
        centroids = self.centroids[:, every].copy() if self.scales is None else self.centroids[every].copy()
        return FedTables(
            centroids,
            None if self.scales is None else self.scales[every].copy(),
            None if self.high is None else self.high[every].copy(),
            self.bias[every].copy(),
            self.offset[every].copy(),
            self.table.first(clusters * count).joined(count),
            self.token_order[part].reshape(clusters, size * count),
            self.projection,
        )


class FedHead:
    """The operator over tables that it is fed.

    Args:
        tables: What it reads.
        probes: P.
        threads: Threads that share the work.
        greedy: Whether it estimates where it can, or scores every candidate.
    """

    def __init__(self, tables: FedTables, probes: int, *, threads: int, greedy: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.register_custom_ops_library(str(native.LIBRARY))
        model = _model(tables, probes)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._tables = tables  # bound in place, so they must live
        self._binding = self._session.io_binding()
        for name, array in _inputs(tables).items():
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_cpu_input(layout.GREEDY_INPUT, np.array([greedy]))

    def run(self, states: _Float32) -> npt.NDArray[np.int64]:
        """Greedy tokens [B] of states [B, H]."""
        self._binding.bind_cpu_input("hidden_states", states)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, "cpu")
        self._session.run_with_iobinding(self._binding)
        return np.asarray(self._binding.get_outputs()[0].numpy(), np.int64)

    def tokens(self, states: _Float32) -> npt.NDArray[np.int64]:
        """Greedy tokens of all states."""
        return np.concatenate([self.run(np.ascontiguousarray(part)) for part in np.array_split(states, 16)])

    def seconds(self, states: _Float32, batch: int, repeats: int, flush: npt.NDArray[np.uint8]) -> list[float]:
        """Times of batches, other states each time, after a few that do not count.

        Args:
            states: [N, H] float32.
            batch: B.
            repeats: How many times.
            flush: Written between two calls, so that the head finds the last cache as a body leaves it.
        """
        times = []
        for repeat in range(_WARM_UP + repeats):
            part = np.ascontiguousarray(np.take(states, range(repeat * batch, (repeat + 1) * batch), 0, mode="wrap"))
            flush += 1
            start = time.perf_counter()
            self.run(part)
            times.append(time.perf_counter() - start)
        return times[_WARM_UP:]


def _inputs(tables: FedTables) -> dict[str, npt.NDArray[Any]]:
    """Arrays by the name of the input, in the operator's order."""
    named = {
        "centroids": tables.centroids,
        "centroid_scales": tables.scales,
        "centroid_bias": tables.bias,
        "selection_offset": tables.offset,
        "rows": tables.table.rows,
        "token_order": tables.token_order,
        "projection": tables.projection,
        "low_nibbles": tables.table.low,
        "row_scales": tables.table.scales,
        "centroid_high": tables.high,
    }
    return {name: array for name, array in named.items() if array is not None}


def _model(tables: FedTables, probes: int) -> bytes:
    """An ONNX model of the operator alone, all tables being inputs."""
    from onnx import TensorProto, helper

    from flashhead_edge.export.graph_builder import IR_VERSIONS, OPSET
    from flashhead_edge.export.head_graph import HEAD_OUTPUTS
    from flashhead_edge.export.native_graph import NATIVE_DOMAIN, NUM_RESCORED

    given = _inputs(tables) | {layout.GREEDY_INPUT: np.array([True])}
    # In the operator's order; a bias and low-bit rows are left out.
    names = ["centroids", "centroid_scales", "centroid_bias", "selection_offset", "rows", "token_order", "", "", ""]
    names += ["projection", "low_nibbles", "row_scales", "centroid_high", layout.GREEDY_INPUT]
    node = helper.make_node(
        "TwoStageHead",
        ["hidden_states", *(name if name in given else "" for name in names)],
        list(HEAD_OUTPUTS),
        domain=NATIVE_DOMAIN,
        num_probes=probes,
        num_rescored=NUM_RESCORED,
        logit_scale=1.0,
        logit_softcap=0.0,
    )
    inputs = [helper.make_tensor_value_info("hidden_states", TensorProto.FLOAT, ["B", tables.table.shape[2]])]
    for name, array in given.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
    kinds = (TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT)
    shapes: Sequence[list[str]] = (["B"], ["B", "M"], ["B", "M"], ["B", "K"])
    outputs = [helper.make_tensor_value_info(*item) for item in zip(HEAD_OUTPUTS, kinds, shapes, strict=True)]
    graph = helper.make_graph([node], "head", inputs, outputs)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(NATIVE_DOMAIN, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[OPSET]).SerializeToString())
