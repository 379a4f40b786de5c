"""What each part of the native library gains, one after another: predicted before it was written, and measured.

The decoding graph of the demonstration's bundles with ever more of it done by the library, in turn in one run, and the
native head alone over the same rows in float16, in int8, and in int8 by halves. Writes ``results/native-steps.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.greedy_steps import states_of
from benchmarks.variants import (
    graph_beside,
    graph_of_standard_body,
    int4_bundle,
    measure_models,
    prompts_and_steps,
)
from flashhead_edge import Bundle, layout, native
from flashhead_edge.bench.load import LoadMeter
from flashhead_edge.export.graph_files import load_graph
from flashhead_edge.export.native_attention import use_native_attention
from flashhead_edge.export.native_gates import use_native_gates
from flashhead_edge.export.native_norms import use_native_norms
from flashhead_edge.export.native_products import use_native_products
from flashhead_edge.export.native_residuals import use_native_residuals
from flashhead_edge.profiling.fed_head import FedHead, FedTables
from flashhead_edge.row_table import RowTable

if TYPE_CHECKING:
    import onnx

POSITIONS = 32
THREADS = 2
HEAD_CALLS = 60
FLUSHED_BYTES = 100 << 20
#: What is added, what does it, and what was expected of it.
PARTS: tuple[tuple[str, Callable[[onnx.ModelProto], Any] | None, str], ...] = (
    ("head", None, "rows are read once instead of three times: the head takes a third"),
    ("attention", use_native_attention, "nothing at few positions"),
    ("products", use_native_products, "nothing: as many bytes as before"),
    (
        "gated layers",
        use_native_gates,
        "5 %: three nodes less in a layer, and the threads meet once instead of four times",
    ),
    ("norms of queries and keys", use_native_norms, "6 % of Gemma 3: seven small nodes less in a layer"),
    ("residual connections", use_native_residuals, "3 to 5 %: two to four small nodes less in a layer"),
)
STANDARD = "standard operators"
#: The bundle's own graph, in which embeddings are an operator too.
EMBEDDINGS = "embeddings"
EXPECTED_OF_EMBEDDINGS = "1 %: some twenty small nodes less"
INT8_ROWS = "half the bytes of stage 2, so half its time; half of that again in greedy steps"


def main() -> None:
    """Measure every model."""
    facts = {
        "kernels": native.kernels(),
        "threads": THREADS,
        "positions": POSITIONS,
        "predicted": {name: expected for name, _, expected in PARTS}
        | {EMBEDDINGS: EXPECTED_OF_EMBEDDINGS, "int8 rows": INT8_ROWS},
    }
    measure_models(__doc__, "native-steps.json", facts, measure)


def measure(name: str) -> dict[str, Any]:
    """All steps of one model."""
    bundle = int4_bundle(name)
    load = LoadMeter()
    with ExitStack() as stack:
        files = {STANDARD: bundle.file(bundle.graph("decode").file)}
        nodes = {STANDARD: len(load_graph(files[STANDARD]).graph.node)}
        for number, (part, _, _) in enumerate(PARTS):
            model = graph_of_standard_body(bundle, native_embeddings=False)
            for _, use, _ in PARTS[: number + 1]:
                if use is not None:
                    use(model)
            files[part] = stack.enter_context(graph_beside(bundle, model))
            nodes[part] = len(model.graph.node)
        files[EMBEDDINGS] = bundle.file(layout.NATIVE_DECODE_GRAPH)
        nodes[EMBEDDINGS] = len(load_graph(files[EMBEDDINGS]).graph.node)
        rows = prompts_and_steps(bundle, files, what="with", lengths=(POSITIONS,), threads=THREADS)
    heads = head_by_rows(bundle)
    for row in rows:
        row["nodes"] = nodes[row["with"]]
    return {"model": name, "other_load_cores": load.other_load(), "rows": rows, "head_ms_p50": heads}


def head_by_rows(bundle: Bundle) -> dict[str, float]:
    """Median milliseconds of the native head alone with cold weights, by how rows are stored and read."""
    tables = FedTables.from_bundle(bundle, bundle.index())
    half = replace(tables, table=RowTable(tables.table.floats().astype(np.float16)))
    probes = bundle.manifest.index.num_probes
    states = states_of(bundle)["own texts"]  # random ones would be as flat as no text's are
    states = states[:: len(states) // HEAD_CALLS]
    flush = np.zeros(FLUSHED_BYTES, np.uint8)
    found = {}
    for name, own, greedy in (("float16", half, False), ("int8", tables, False), ("int8, greedy", tables, True)):
        head = FedHead(own, probes, threads=THREADS, greedy=greedy)
        found[name] = float(np.median(head.seconds(states, 1, HEAD_CALLS, flush))) * 1e3
    return found


if __name__ == "__main__":
    main()
