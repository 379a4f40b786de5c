"""The same bundle with two graphs, the native library's operators and ONNX Runtime's: timed in turn."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.models import MODELS, RESULTS, bundle_of
from benchmarks.undisturbed import go_first
from flashhead_edge import Bundle, layout
from flashhead_edge.bench.heads import with_head
from flashhead_edge.export.graph_files import load_graph, save_graph
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.stored_rows import JOINED_ROWS
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.runtimes.decoder import Decoder

if TYPE_CHECKING:
    import onnx

STEPS, SETTLING, ROUNDS = 40, 8, 5


def measure_models(
    description: str | None, file: str, facts: dict[str, Any], measure: Callable[[str], dict[str, Any]]
) -> None:
    """The command line of a comparison: measure the models that are asked for, and write the report.

    Args:
        description: Of the script.
        file: Name of the report in the folder of results.
        facts: What the report says besides the machine, the rounds and the models.
        measure: What it says of a model, by name.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    go_first()
    report = {"machine": host_facts().as_dict(), "rounds": ROUNDS} | facts
    report["models"] = [measure(name) for name in arguments.models]
    (RESULTS / file).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def int4_bundle(name: str) -> Bundle:
    """The demonstration's bundle, whose body has low-bit products.

    Args:
        name: One of :data:`benchmarks.models.MODELS`.
    """
    return bundle_of(name, ExportOptions(body_precision="int4", max_positions=4096), label="int4-bundle")


def graph_of_standard_body(bundle: Bundle, *, native_embeddings: bool = True) -> onnx.ModelProto:
    """The decoding graph with the native library's head, and a body of which nothing is the library's yet.

    Args:
        bundle: Whose graphs are taken.
        native_embeddings: Whether the library does the embeddings too.
    """
    head = bundle.file(layout.NATIVE_HEAD_GRAPH)
    with tempfile.NamedTemporaryFile(dir=bundle.path, suffix=layout.NATIVE_SUFFIX) as file:
        model = load_graph(with_head(bundle.file(layout.DECODE_GRAPH), head, Path(file.name)))
    if not native_embeddings:
        return model
    graph, other = model.graph, load_graph(bundle.file(layout.NATIVE_DECODE_GRAPH)).graph
    (embedding,) = (node for node in other.node if node.op_type == "TokenEmbedding")
    kept = [node for node in graph.node if not node.name.startswith(("/embedding/", JOINED_ROWS))]
    del graph.node[:]
    graph.node.extend([embedding, *kept])
    read = {name for node in graph.node for name in node.input}
    tensors = {tensor.name: tensor for part in (other, graph) for tensor in part.initializer if tensor.name in read}
    del graph.initializer[:]
    graph.initializer.extend(tensors.values())
    return model


@contextmanager
def graph_beside(bundle: Bundle, model: onnx.ModelProto) -> Iterator[Path]:
    """A graph beside the bundle's data while it is needed."""
    with tempfile.NamedTemporaryFile(dir=bundle.path, suffix=layout.NATIVE_SUFFIX) as file:
        save_graph(model, Path(file.name))
        yield Path(file.name)


def prompts_and_steps(
    bundle: Bundle, files: dict[str, Path], *, what: str, lengths: tuple[int, ...], threads: int
) -> list[dict[str, Any]]:
    """Medians of prompts and steps by length, the graphs in turn.

    Args:
        bundle: What the graphs belong to.
        files: Graphs by name.
        what: Key of the name in a row of the result.
        lengths: Tokens of the prompts.
        threads: Threads of the operators.
    """
    body = bundle.manifest.body
    assert body is not None
    decoders = {which: Decoder(file, body, threads=threads, outputs=("token_ids",)) for which, file in files.items()}
    random = np.random.default_rng(0)
    rows = []
    for length in lengths:
        ids = random.integers(1000, 20000, (1, length))
        prompts: dict[str, list[float]] = {which: [] for which in decoders}
        steps: dict[str, list[float]] = {which: [] for which in decoders}
        for number in range(ROUNDS):
            for which in list(decoders)[:: 1 if number % 2 else -1]:
                decoder = decoders[which]
                for _ in range(2):  # the first, slowed by the other session's spinning threads, does not count
                    decoder.reset(positions=length + STEPS)
                    start = time.perf_counter()
                    token = decoder.run(ids, greedy=True)[0]
                    seconds = time.perf_counter() - start
                prompts[which].append(seconds)
                for step in range(STEPS):
                    start = time.perf_counter()
                    token = decoder.run(token[:, None], greedy=True)[0]
                    if step >= SETTLING:
                        steps[which].append(time.perf_counter() - start)
        rows += [
            {
                "positions": length,
                what: which,
                "prompt_ms_p50": statistics.median(prompts[which]) * 1e3,
                "step_ms_p50": statistics.median(steps[which]) * 1e3,
            }
            for which in decoders
        ]
    return rows
