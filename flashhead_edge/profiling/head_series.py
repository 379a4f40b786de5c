"""Series of the native head alone: its time against probes, batch, clusters and vocabulary.

One operator reads the bundle's own table where it is mapped. Fewer clusters of the same vocabulary are neighbours
joined, a smaller vocabulary is the first clusters of the table: that changes what is found, so only the series of
probes has an agreement, but not what is read and computed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout, native
from flashhead_edge.bench.turns import PROMPTS
from flashhead_edge.errors import OptionalDependencyError, ProfileError
from flashhead_edge.generator import Generator
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.profiling.record import HeadPoint
from flashhead_edge.progress import Progress, no_progress
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.reference import CENTROID_BITS

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

_Float32 = npt.NDArray[np.float32]
#: States that agreement is measured on, of texts that the bundle writes.
_STATES = 512
_BATCHES = (1, 2, 4, 8, 16, 32)
#: Parts of P, V and K that the series take.
_PROBE_PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 2, 2)
_PARTS = (1 / 8, 1 / 4, 1 / 2, 1)
_REPEATS = 40
_WARM_UP = 5
#: Written between two calls, so that the head finds the last cache as a body leaves it.
_FLUSH_BYTES = 64 << 20


@dataclass(frozen=True)
class _Tables:
    """What the operator reads, by its inputs; C slots a cluster, T - K clusters always opened."""

    centroids: npt.NDArray[Any]
    scales: _Float32 | None
    bias: _Float32
    offset: _Float32
    rows: npt.NDArray[np.generic]
    token_order: npt.NDArray[np.int32]

    def first(self, clusters: int) -> _Tables:
        """The first clusters, none always opened."""
        cut = slice(None, clusters)
        centroids = self.centroids[:, cut].copy() if self.scales is None else self.centroids[cut]
        scales = None if self.scales is None else self.scales[cut]
        return _Tables(centroids, scales, self.bias[cut], self.offset[cut], self.rows[cut], self.token_order[cut])

    def joined(self, count: int) -> _Tables:
        """Every ``count`` neighbours one cluster, none always opened."""
        clusters = len(self.bias) // count
        size, width = self.rows.shape[1:]
        part, every = slice(clusters * count), slice(0, clusters * count, count)
        centroids = self.centroids[:, every].copy() if self.scales is None else self.centroids[every].copy()
        return _Tables(
            centroids,
            None if self.scales is None else self.scales[every].copy(),
            self.bias[every].copy(),
            self.offset[every].copy(),
            self.rows[part].reshape(clusters, size * count, width),
            self.token_order[part].reshape(clusters, size * count),
        )


def head_series(
    bundle: Bundle, generator: Generator, *, threads: int, progress: Progress = no_progress
) -> tuple[HeadPoint, ...]:
    """Measure all series.

    Args:
        bundle: An opened bundle.
        generator: Of the bundle; writes the texts whose states agreement is measured on.
        threads: Threads of the operator.
        progress: Told of each point.

    Returns:
        The points, series by series.

    Raises:
        OptionalDependencyError: onnx is not installed.
        ProfileError: The native library cannot be used, or the head has a bias, which the series leave out.
    """
    if find_spec("onnx") is None:
        raise OptionalDependencyError("onnx", "report", "Measuring series of the head")
    if (reason := native.unavailable_because()) is not None:
        raise ProfileError("Series of the head need the native library.", found=reason, hint="profile without them")
    if bundle.manifest.has_bias:
        raise ProfileError("Series of a head with a bias are not measured.", hint="profile without them")
    index, facts = bundle.index(), bundle.manifest.index
    tables = _tables(bundle, index)
    states = _states(generator)
    dense = _dense_tokens(tables, states)
    probes = facts.num_probes
    configurations: list[tuple[Literal["probes", "batch", "clusters", "vocabulary"], _Tables, int, int]] = []
    for part in _PROBE_PARTS:
        configurations.append(("probes", tables, min(facts.num_clusters, max(1, round(probes * part))), 1))
    configurations += [("batch", tables, probes, batch) for batch in _BATCHES]
    for part in _PARTS:
        count = max(1, round(facts.num_clusters * part))
        configurations.append(("vocabulary", tables.first(count), min(probes, count), 1))
    for join in (8, 4, 2, 1):
        joined = tables.joined(join)
        configurations.append(("clusters", joined, max(1, min(probes // join, len(joined.bias))), 1))
    points = []
    for number, (varied, part_tables, opened, batch) in enumerate(configurations):
        head = _NativeHead(part_tables, opened, threads=threads)
        size = part_tables.rows.shape[1]
        points.append(
            HeadPoint(
                varied=varied,
                batch=batch,
                vocab_size=min(bundle.manifest.vocab_size, part_tables.rows.shape[0] * size),
                num_clusters=len(part_tables.bias),
                num_probes=opened,
                head_ms=head.median_ms(states, batch),
                agreement=float(np.mean(head.tokens(states) == dense)) if varied == "probes" else None,
            )
        )
        progress("measuring the head alone", number + 1, len(configurations))
    return tuple(points)


class _NativeHead:
    """The operator over tables that it is fed."""

    def __init__(self, tables: _Tables, probes: int, *, threads: int) -> None:
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
        self._flush = np.zeros(_FLUSH_BYTES, np.uint8)

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

    def median_ms(self, states: _Float32, batch: int) -> float:
        """Median time of a batch, other states each time."""
        seconds = []
        for repeat in range(_WARM_UP + _REPEATS):
            part = np.ascontiguousarray(np.take(states, range(repeat * batch, (repeat + 1) * batch), 0, mode="wrap"))
            self._flush += 1
            start = time.perf_counter()
            self.run(part)
            seconds.append(time.perf_counter() - start)
        return float(np.median(seconds[_WARM_UP:])) * 1e3


def _inputs(tables: _Tables) -> dict[str, npt.NDArray[Any]]:
    """Arrays by the name of the input, in the operator's order."""
    named = {
        "centroids": tables.centroids,
        "centroid_scales": tables.scales,
        "centroid_bias": tables.bias,
        "selection_offset": tables.offset,
        "rows": tables.rows,
        "token_order": tables.token_order,
    }
    return {name: array for name, array in named.items() if array is not None}


def _model(tables: _Tables, probes: int) -> bytes:
    """An ONNX model of the operator alone, all tables being inputs."""
    from onnx import TensorProto, helper

    from flashhead_edge.export.graph_builder import IR_VERSIONS, OPSET
    from flashhead_edge.export.head_graph import HEAD_OUTPUTS
    from flashhead_edge.export.native_graph import NATIVE_DOMAIN

    given = _inputs(tables)
    names = ["centroids", "centroid_scales", "centroid_bias", "selection_offset", "rows", "token_order"]
    node = helper.make_node(
        "TwoStageHead",
        ["hidden_states", *(name if name in given else "" for name in names), "", "", ""],
        list(HEAD_OUTPUTS),
        domain=NATIVE_DOMAIN,
        num_probes=probes,
        num_rescored=1,
        logit_scale=1.0,
        logit_softcap=0.0,
    )
    inputs = [helper.make_tensor_value_info("hidden_states", TensorProto.FLOAT, ["B", tables.rows.shape[2]])]
    for name, array in given.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
    kinds = (TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT)
    shapes: Sequence[list[str]] = (["B"], ["B", "M"], ["B", "M"], ["B", "K"])
    outputs = [helper.make_tensor_value_info(*item) for item in zip(HEAD_OUTPUTS, kinds, shapes, strict=True)]
    graph = helper.make_graph([node], "head", inputs, outputs)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(NATIVE_DOMAIN, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[OPSET]).SerializeToString())


def _tables(bundle: Bundle, index: HeadIndex) -> _Tables:
    """The bundle's tables; centroids in the precision of its graphs."""
    bits = CENTROID_BITS[bundle.manifest.index.centroid_precision]
    if bits == 32:
        centroids: npt.NDArray[Any] = np.ascontiguousarray(index.centroids.T)
        scales = None
    else:
        quantized = quantize_rows(index.centroids, bits)
        centroids, scales = quantized.codes, quantized.scales
    return _Tables(
        centroids,
        scales,
        index.centroid_bias.astype(np.float32),
        index.selection_offset.astype(np.float32),
        bundle.table(layout.ROWS),
        np.ascontiguousarray(index.token_order, np.int32),
    )


def _states(generator: Generator) -> _Float32:
    """Hidden states [N, H] of texts that the bundle writes greedily, one a position."""
    decoder = generator.decoder
    states = []
    for prompt in PROMPTS:
        fed = np.array([generator.tokenizer.encode(prompt)], np.int64)
        steps = min(_STATES // len(PROMPTS), decoder.body.max_positions - fed.shape[1])
        decoder.reset(positions=fed.shape[1] + steps)
        for _ in range(steps):
            output = decoder.step(fed)
            states.append(output.hidden_states[0].copy())
            fed = output.head.token_ids[:, None]
    return np.stack(states)


def _dense_tokens(tables: _Tables, states: _Float32) -> npt.NDArray[np.int64]:
    """The token of the greatest product with any row, [N] int64; scale and soft-cap are monotone."""
    best = np.full(len(states), -np.inf, np.float32)
    tokens = np.zeros(len(states), np.int64)
    at_once = max(1, (1 << 24) // tables.rows[0].size)
    for start in range(0, len(tables.rows), at_once):
        rows = np.asarray(tables.rows[start : start + at_once], np.float32).reshape(-1, states.shape[1])
        order = tables.token_order[start : start + at_once].reshape(-1)
        products = np.where(order < 0, np.float32(-np.inf), states @ rows.T)
        place = products.argmax(axis=1)
        found = products[np.arange(len(states)), place]
        tokens = np.where(found > best, order[place], tokens)
        best = np.maximum(best, found)
    return tokens
