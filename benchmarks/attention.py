"""Attention of the native library beside ONNX Runtime's, in whole models: equal texts, prompts and steps.

The same bundle with either attention. Greedy texts with drafts are compared with those without, token for token;
prompts and single steps are timed in turn at several lengths of the text. Writes ``results/attention.json``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.decoding_tables import OURS, THEIRS
from benchmarks.demo import PROMPTS
from benchmarks.variants import (
    graph_beside,
    graph_of_standard_body,
    int4_bundle,
    measure_models,
    prompts_and_steps,
)
from flashhead_edge import Bundle, Generator, layout
from flashhead_edge.bench.load import LoadMeter
from flashhead_edge.export.native_gates import use_native_gates
from flashhead_edge.export.native_products import use_native_products
from flashhead_edge.export.native_residuals import use_native_residuals
from flashhead_edge.runtimes.decoder import Decoder

REPEATING = (
    "Apples, pears, plums, apples, pears, plums, apples,",
    "Once upon a time there was a king. The king",
    "Question: What is 2+2? Answer: 4. Question: What is",
    "1, 2, 3, 4, 5,",
)
DRAFTS = (1, 3, 6)
NEW_TOKENS = 120
LENGTHS = (32, 512, 2048)
THREADS = 2


def main() -> None:
    """Measure every model."""
    facts = {"threads": THREADS, "new_tokens": NEW_TOKENS}
    measure_models(__doc__, "attention.json", facts, measure)


def measure(name: str) -> dict[str, Any]:
    """Both attentions in one model."""
    bundle = int4_bundle(name)
    with graphs(bundle) as files:
        texts = {which: equal_texts(bundle, file) for which, file in files.items()}
        print(name, texts, file=sys.stderr)
        load = LoadMeter()
        rows = prompts_and_steps(bundle, files, what="attention", lengths=LENGTHS, threads=THREADS)
        return {"model": name, "texts": texts, "other_load_cores": load.other_load(), "rows": rows}


@contextmanager
def graphs(bundle: Bundle) -> Iterator[dict[str, Path]]:
    """The decoding graph with either attention, the second beside the bundle's data while it is needed."""
    model = graph_of_standard_body(bundle)
    for use in (use_native_products, use_native_gates, use_native_residuals):
        use(model)
    with graph_beside(bundle, model) as theirs:
        yield {OURS: bundle.file(layout.NATIVE_DECODE_GRAPH), THEIRS: theirs}


def equal_texts(bundle: Bundle, graph: Path) -> dict[str, int]:
    """How many drafted texts are those without drafts."""
    generator = Generator(bundle, runtime="onnxruntime", threads=THREADS)
    assert bundle.manifest.body is not None
    generator.decoder = Decoder(graph, bundle.manifest.body, threads=THREADS)
    equal = compared = accepted = 0
    for prompt in (*PROMPTS, *REPEATING):
        expected = generator.generate(prompt, max_new_tokens=NEW_TOKENS).token_ids
        for count in DRAFTS:
            drafted = generator.generate(prompt, max_new_tokens=NEW_TOKENS, num_drafts=count)
            equal += drafted.token_ids == expected
            compared += 1
            accepted += drafted.accepted_drafts
    return {"equal": equal, "compared": compared, "accepted_drafts": accepted}


if __name__ == "__main__":
    main()
