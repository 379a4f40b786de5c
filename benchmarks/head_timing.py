"""Times heads of random rows, each alone in its graph, as a decoding step finds them: weights cold, threads awake.

A decoding step reads the whole body between two uses of the head, so nothing of the head is left in the caches. Here
every graph goes on to read another input after the head, a large one in the call before each that is timed. The same
session does it, on the same threads, which are still awake when the head's turn comes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime

from benchmarks.undisturbed import Waiting, go_first, thread_ids
from flashhead_edge import layout, native
from flashhead_edge.export import dense_head
from flashhead_edge.export.graph_files import load_graph, save_graph
from flashhead_edge.export.head_graph import two_stage_graph
from flashhead_edge.export.head_tables import WrittenHead, write_head_data
from flashhead_edge.export.native_graph import native_head_graph
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.quantize import QuantizedRows, quantize_rows
from flashhead_edge.runtimes.session import can_be_greedy, open_session

#: What is read between two calls; several times the last-level cache of most machines.
EVICTION_BYTES = 160 << 20
_CALLS_OF_A_TURN = 4
#: Rows that differ from each other.
_DISTINCT = 4096


@dataclass(frozen=True)
class Case:
    """One head and how it is called.

    Attributes:
        head: "native", "standard" (operators) or "dense".
        vocab_size: V.
        hidden_size: H.
        batch: B.
        cluster_size: C; 0 for a dense head, like P.
        num_probes: P.
        centroid_precision: "int8" or "int4"; None for a dense head.
        precision: Of the rows that are scored: "fp16" of a two-stage head; "int8", "int4" or "fp32" of a dense one.
        low_bit_rows: "int8" or "int4" rows from which a native head estimates; its steps are greedy.
    """

    head: str
    vocab_size: int
    hidden_size: int
    batch: int = 1
    cluster_size: int = 0
    num_probes: int = 0
    centroid_precision: str | None = None
    precision: str = "fp16"
    low_bit_rows: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        shape = f"{self.head} {self.vocab_size}x{self.hidden_size} {self.precision} b{self.batch}"
        low = f" {self.low_bit_rows} rows first" if self.low_bit_rows else ""
        clusters = f" C={self.cluster_size} P={self.num_probes} {self.centroid_precision} centroids{low}"
        return shape + (clusters if self.head != "dense" else "")

    @property
    def data(self) -> Case:
        """What cases have in common that read the same files."""
        return replace(self, batch=0, num_probes=0, head="dense" if self.head == "dense" else "two-stage")

    def as_dict(self) -> dict[str, Any]:
        """The case as JSON takes it."""
        return asdict(self)


def write_graphs(cases: Iterable[Case], folder: Path) -> dict[Case, Path]:
    """Write the heads of all cases; what is there already is kept.

    Args:
        cases: What will be timed.
        folder: Where graphs and data go, a folder for each head's data.

    Returns:
        The graph of each case. Cases that differ in batch alone share one.
    """
    graphs: dict[Case, Path] = {}
    by_rows = sorted(cases, key=lambda case: (case.vocab_size, case.hidden_size, str(case.data)))
    for (vocab, width), group in itertools.groupby(by_rows, key=lambda case: (case.vocab_size, case.hidden_size)):
        rows: np.ndarray | None = None
        for data, members in itertools.groupby(group, key=lambda case: case.data):
            place = folder / "-".join(str(value) for value in asdict(data).values())
            wanted = {case: place / graph_name(case) for case in members}
            graphs |= wanted
            if all(path.is_file() for path in wanted.values()):
                continue
            place.mkdir(parents=True, exist_ok=True)
            if rows is None:
                rows = random_rows(vocab, width)
            written = None if data.head == "dense" else write_table(place, rows, data)
            for case, path in wanted.items():
                save_graph(evictable(case_graph(case, written, rows, place)), path)
    return graphs


def graph_name(case: Case) -> str:
    """File name of a case's graph; the native library is loaded for those that end like the package's own."""
    return f"p{case.num_probes}{layout.NATIVE_SUFFIX if case.head == 'native' else '.onnx'}"


def random_rows(vocab: int, width: int) -> np.ndarray:
    """[V, H] float32; a few thousand distinct rows, repeated: what is in them does not change how long they take."""
    few = np.random.default_rng(0).standard_normal((_DISTINCT, width), np.float32) * np.float32(width**-0.5)
    return np.resize(few, (vocab, width))


def quantize_repeated(rows: np.ndarray, bits: int) -> QuantizedRows:
    """Codes of :func:`random_rows`, which repeat as the rows do; saves minutes with large vocabularies."""
    few = quantize_rows(rows[:_DISTINCT], bits)
    codes, scales = (np.resize(part, (len(rows), *part.shape[1:])) for part in (few.codes, few.scales))
    return replace(few, codes=codes, scales=scales)


def write_table(place: Path, rows: np.ndarray, case: Case) -> WrittenHead:
    """Write a two-stage head's tensors, tokens in order, centroids at random."""
    clusters = -(-case.vocab_size // case.cluster_size)
    order = np.arange(clusters * case.cluster_size, dtype=np.int32).reshape(clusters, -1)
    order[order >= case.vocab_size] = -1
    nothing = np.zeros(clusters, np.float32)
    centroids = np.random.default_rng(1).standard_normal((clusters, case.hidden_size), np.float32)
    index = HeadIndex(order, centroids, nothing, nothing, nothing, case.vocab_size)
    assert case.centroid_precision is not None
    return write_head_data(
        place,
        LmHead(rows),
        index,
        num_probes=1,
        centroid_precision=case.centroid_precision,
        cluster_precision=case.precision,
        low_bit_rows=case.low_bit_rows,
    )


def case_graph(case: Case, written: WrittenHead | None, rows: np.ndarray, place: Path) -> onnx.ModelProto:
    """The graph of a case."""
    if written is None:
        with patch.object(dense_head, "quantize_rows", quantize_repeated):
            return load_graph(dense_head.write_dense_head(rows, case.precision, place, "dense.onnx"))  # type: ignore[arg-type]
    tables = replace(written.tables, num_probes=case.num_probes)
    if case.head == "native":
        return native_head_graph(tables)
    return two_stage_graph(replace(tables, low_bit_codes=None, low_bit_scales=None))


def evictable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, which after the head reads as much of another input as it is fed."""
    helper, graph = onnx.helper, model.graph
    graph.input.append(helper.make_tensor_value_info("eviction", onnx.TensorProto.FLOAT, ["parts", "numbers"]))
    for name, value in (("eviction/zero", 0), ("eviction/one", 1)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([value], np.int64), name))
    # The axis is always 1, but is known only when the head is done, so that the head's weights are what is evicted.
    nodes = (
        ("ReduceMin", ["token_ids"], "eviction/token"),
        ("Mul", ["eviction/token", "eviction/zero"], "eviction/nothing"),
        ("Add", ["eviction/nothing", "eviction/one"], "eviction/axes"),
        ("ReduceMax", ["eviction", "eviction/axes"], "evicted"),
    )
    graph.node.extend(helper.make_node(kind, inputs, [output], name=f"/{output}") for kind, inputs, output in nodes)
    graph.output.append(helper.make_tensor_value_info("evicted", onnx.TensorProto.FLOAT, None))
    return model


class HeadCall:
    """A head that is called with cold caches.

    Args:
        graph: Of :func:`write_graphs`.
        case: What is called.
        threads: Threads of the operators.
        eviction: [threads, N] float32, shared by all.
    """

    def __init__(self, graph: Path, case: Case, threads: int, eviction: onnxruntime.OrtValue) -> None:
        others = thread_ids()
        self._session = open_session(graph, threads=threads)
        self._waiting = Waiting([str(os.getpid()), *(thread_ids() - others)])
        self._eviction = eviction
        self._nothing = onnxruntime.OrtValue.ortvalue_from_numpy(np.ones((threads, 1), np.float32))
        self._random = np.random.default_rng(2)
        self._shape = (case.batch, case.hidden_size)
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._greedy = {}
        if can_be_greedy(self._session):
            self._greedy = {layout.GREEDY_INPUT: onnxruntime.OrtValue.ortvalue_from_numpy(np.array([True]))}

    def _feed(self, states: onnxruntime.OrtValue, eviction: onnxruntime.OrtValue) -> dict[str, onnxruntime.OrtValue]:
        return {"hidden_states": states, "eviction": eviction, **self._greedy}

    def seconds(self) -> float | None:
        """Time one call on new states, after one that leaves the caches full of other numbers.

        Returns:
            The time; None if a thread had to wait for a core meanwhile.
        """
        states = onnxruntime.OrtValue.ortvalue_from_numpy(self._random.standard_normal(self._shape, np.float32))
        self._session.run_with_ort_values(self._outputs, self._feed(states, self._eviction))
        self._waiting.restart()
        start = time.perf_counter()
        self._session.run_with_ort_values(self._outputs, self._feed(states, self._nothing))
        seconds = time.perf_counter() - start
        return None if self._waiting.disturbed(seconds) else seconds


def time_cases(graphs: dict[Case, Path], *, threads: int, calls: int, limit_s: float) -> dict[Case, list[float]]:
    """Time every case in turn, a few calls at a time, so that what else changes meets them alike.

    Args:
        graphs: Of :func:`write_graphs`.
        threads: Threads of the operators.
        calls: How many undisturbed ones are wanted of each case.
        limit_s: No new turn begins after this many seconds.

    Returns:
        Seconds of every undisturbed call.

    Raises:
        SystemExit: Time ran out before every case had one.
    """
    go_first()
    # Not zeros, which the system would serve from one and the same page.
    numbers = np.ones((threads, EVICTION_BYTES // 4 // threads), np.float32)
    eviction = onnxruntime.OrtValue.ortvalue_from_numpy(numbers)
    heads = {case: HeadCall(path, case, threads, eviction) for case, path in graphs.items()}
    found: dict[Case, list[float]] = {case: [] for case in graphs}
    end = time.perf_counter() + limit_s
    while (waiting := [case for case in found if len(found[case]) < calls]) and time.perf_counter() < end:
        for case in waiting:
            heads[case].seconds()  # the turn before belonged to another
            timed = (heads[case].seconds() for _ in range(_CALLS_OF_A_TURN))
            found[case] += [seconds for seconds in timed if seconds is not None]
    if missing := [case.name for case, seconds in found.items() if not seconds]:
        raise SystemExit(f"The machine was too busy to measure {', '.join(missing)}.")
    return found


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and the middle 80 %, in milliseconds."""
    return {f"ms_p{percent}": round(float(np.percentile(seconds, percent)) * 1e3, 4) for percent in (50, 10, 90)}


def kernels() -> str | None:
    """Kernels of the native library; None where it is not usable."""
    return native.kernels() if native.is_available() else None


__all__ = ["Case", "HeadCall", "kernels", "spread", "time_cases", "write_graphs"]
