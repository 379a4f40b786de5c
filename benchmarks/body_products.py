"""Low-bit products of the native library beside ONNX Runtime's, in whole models: time, memory and tokens.

The same bundle with either operator. Prompts and steps are timed in turn; the products' own times come from ONNX
Runtime's profiles of the same steps; memory is that of ``flashhead-edge generate``. Writes
``results/body-products.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decoding_tables import OURS, THEIRS
from benchmarks.demo import PROMPTS
from benchmarks.variants import (
    ROUNDS,
    graph_beside,
    graph_of_standard_body,
    int4_bundle,
    measure_models,
    prompts_and_steps,
)
from flashhead_edge import Bundle, Generator, layout, native
from flashhead_edge.bench.load import LoadMeter
from flashhead_edge.export.graph_files import load_graph
from flashhead_edge.export.native_attention import use_native_attention
from flashhead_edge.export.native_gates import use_native_gates
from flashhead_edge.export.native_graph import NATIVE_DOMAIN
from flashhead_edge.export.native_norms import use_native_norms
from flashhead_edge.export.native_products import use_native_products
from flashhead_edge.export.native_residuals import use_native_residuals
from flashhead_edge.runtimes.decoder import Decoder

LENGTHS = (32, 512)
THREADS = 2
PROFILED_PROMPT, PROFILED_STEPS = 512, 24
NEW_TOKENS = 64
COMPARED_TOKENS = 200
UNROUNDED = "float states"
#: The library's products without gated layers and residual connections in them, to compare them one by one.
OURS_APART = f"{OURS}, one by one"
#: Of MatMulNBits: whether states are rounded to 8 bits.
_FLOAT_STATES = 1
_OP = "MatMulNBits"


def main() -> None:
    """Measure every model."""
    facts = {"kernels": native.kernels(), "threads": THREADS, "new_tokens": NEW_TOKENS}
    measure_models(__doc__, "body-products.json", facts, measure)


def measure(name: str) -> dict[str, Any]:
    """Both operators in one model."""
    bundle = int4_bundle(name)
    with graphs(bundle) as files:
        tokens = same_tokens(bundle, files)
        apart = {OURS: files.pop(OURS_APART), THEIRS: files[THEIRS]}
        del files[UNROUNDED]
        memory = {which: memory_of(bundle, file) for which, file in files.items()}
        print(name, tokens, memory, file=sys.stderr)
        load = LoadMeter()
        rows = prompts_and_steps(bundle, files, what="products", lengths=LENGTHS, threads=THREADS)
        shapes = times_by_shape(bundle, apart)
        other = load.other_load()
    return {
        "model": name,
        "tokens": tokens,
        "memory": memory,
        "other_load_cores": other,
        "rows": rows,
        "shapes": shapes,
    }


@contextmanager
def graphs(bundle: Bundle) -> Iterator[dict[str, Path]]:
    """The decoding graph with each operator, beside the bundle's data while they are needed."""
    models = {which: graph_of_standard_body(bundle) for which in (OURS, OURS_APART, THEIRS, UNROUNDED)}
    for model in models.values():
        use_native_attention(model)
        use_native_norms(model)
    for which in (OURS, OURS_APART):
        use_native_products(models[which])
    use_native_gates(models[OURS])
    use_native_residuals(models[OURS])
    for node in models[UNROUNDED].graph.node:
        for attribute in node.attribute if node.op_type == _OP else ():
            if attribute.name == "accuracy_level":
                attribute.i = _FLOAT_STATES
    with ExitStack() as stack:
        yield {which: stack.enter_context(graph_beside(bundle, model)) for which, model in models.items()}


def same_tokens(bundle: Bundle, files: dict[str, Path]) -> dict[str, int]:
    """At how many positions of greedy texts the next token is that of states that are not rounded."""
    body = bundle.manifest.body
    assert body is not None
    generator = Generator(bundle, runtime="onnxruntime", threads=THREADS)
    decoders = {which: Decoder(file, body, threads=THREADS) for which, file in files.items()}
    generator.decoder = decoders[UNROUNDED]
    same = dict.fromkeys((OURS, THEIRS), 0)
    positions = 0
    for prompt in PROMPTS:
        text = generator.generate(prompt, max_new_tokens=COMPARED_TOKENS)
        ids = np.array([[*generator.tokenizer.encode(prompt), *text.token_ids]])
        chosen = {}
        for which, decoder in decoders.items():
            decoder.reset()
            chosen[which] = decoder.step(ids, scored=ids.shape[1]).head.token_ids
        for which in same:
            same[which] += int((chosen[which] == chosen[UNROUNDED]).sum())
        positions += ids.shape[1]
    return {"positions": positions, **same}


def memory_of(bundle: Bundle, graph: Path) -> dict[str, int]:
    """Memory of ``flashhead-edge generate``, over links to the bundle's files and this graph.

    Returns:
        The most that was resident; and, when most of the files was mapped, what was of no file and of mapped files.
    """
    with tempfile.TemporaryDirectory(dir=bundle.path.parent) as folder:
        for name in bundle.manifest.files:
            os.link(graph if name == layout.NATIVE_DECODE_GRAPH else bundle.path / name, Path(folder, name))
        content = graph.read_bytes()
        record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest = json.loads((bundle.path / layout.MANIFEST).read_text(encoding="utf-8"))
        manifest["files"][layout.NATIVE_DECODE_GRAPH] |= record
        Path(folder, layout.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        command = [sys.executable, "-m", "flashhead_edge", "generate", folder, PROMPTS[0], "--threads", str(THREADS)]
        command += ["--max-new-tokens", str(NEW_TOKENS), "--json"]
        fullest = (0, 0)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                fullest = max(fullest, mapped_and_anonymous(process.pid))
                time.sleep(0.01)
            assert process.stdout is not None
            peak: int = json.load(process.stdout)["peak_rss_bytes"]
    return {"peak_rss_bytes": peak, "anonymous_bytes": fullest[1], "mapped_bytes": fullest[0]}


def mapped_and_anonymous(process: int) -> tuple[int, int]:
    """Resident bytes of mapped files and of no file."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
    return sizes.get("RssFile", 0), sizes.get("RssAnon", 0)


def times_by_shape(bundle: Bundle, files: dict[str, Path]) -> list[dict[str, Any]]:
    """Medians of the products of a prompt and of steps by shape, from profiles of both graphs, in turn."""
    body = bundle.manifest.body
    assert body is not None
    ids = np.random.default_rng(0).integers(1000, 20000, (1, PROFILED_PROMPT))
    with tempfile.TemporaryDirectory() as folder:
        decoders = {
            which: Decoder(file, body, threads=THREADS, outputs=("token_ids",), profile=Path(folder, str(number)))
            for number, (which, file) in enumerate(files.items())
        }
        for number in range(ROUNDS):
            for decoder in list(decoders.values())[:: 1 if number % 2 else -1]:
                decoder.reset(positions=PROFILED_PROMPT + PROFILED_STEPS)
                token = decoder.run(ids, greedy=True)[0]
                for _ in range(PROFILED_STEPS):
                    token = decoder.run(token[:, None], greedy=True)[0]
        profiles = {which: node_times(decoder.end_profile()) for which, decoder in decoders.items()}
    shapes: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    for node in load_graph(files[OURS]).graph.node:
        if (node.domain, node.op_type) == (NATIVE_DOMAIN, _OP):
            sizes = {attribute.name: attribute.i for attribute in node.attribute}
            shapes[sizes["K"], sizes["N"], sizes["bits"]].append(node.name)
    return [
        {"K": width, "N": rows, "bits": bits, "nodes": len(names), "products": which, **medians(profiles[which], names)}
        for (width, rows, bits), names in shapes.items()
        for which in files
    ]


def node_times(profile: Path) -> dict[str, list[int]]:
    """Microseconds of every run of every node, in order."""
    times: dict[str, list[int]] = defaultdict(list)
    for event in json.loads(profile.read_text(encoding="utf-8")):
        if event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    return times


def medians(times: dict[str, list[int]], names: list[str]) -> dict[str, float]:
    """Of prompts, the first run of each round, and of steps."""
    runs = [times[name] for name in names]
    turn = PROFILED_STEPS + 1
    prompts = [seconds for run in runs for seconds in run[::turn]]
    steps = [seconds for run in runs for place, seconds in enumerate(run) if place % turn]
    return {"step_us_p50": statistics.median(steps), "prompt_us_p50": statistics.median(prompts)}


if __name__ == "__main__":
    main()
