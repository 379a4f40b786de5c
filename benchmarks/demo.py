"""Export a real model, let it write, and compare its two-stage head with dense heads over the same body.

Greedy decoding of the same prompts by every head, one after another in each round, so that a change in the machine's
speed meets all of them; the first steps of each turn, slowed by the spinning threads and cached weights of the turn
before, do not count. Agreement is with the dense fp32 head: each head is fed the fp32 head's text and asked for
the next token at every position. Writes ``results/demo-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.models import MODELS, RESULTS, WORK, bundle_of
from flashhead_edge import Bundle, Generator, layout, native
from flashhead_edge.bench.heads import write_dense_graphs
from flashhead_edge.bench.turns import agreement_with
from flashhead_edge.export.native_graph import NUM_RESCORED
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.memory import peak_rss_bytes
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.profiling.costs import stage_costs
from flashhead_edge.profiling.record import CENTROIDS, GATHER_DOT
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.tokenizer import Tokenizer

PROMPTS = (
    "The history of the lighthouse begins",
    "To bake a simple loaf of bread, first",
    "def read_lines(path):",
    "Die Stadt liegt an einem Fluss und",
)
#: The two-stage head without the native library; "two-stage" has it where it is.
PORTABLE = "two-stage, standard operators"
#: Steps of a turn that do not count.
SETTLING = 16
HEADS = ("dense fp32", "dense int8", "dense int4", PORTABLE, "two-stage")


def main() -> None:
    """Run the comparison of one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--body-precision", choices=("int4", "int8", "fp32"), default="int4")
    arguments = parser.parse_args()
    options = ExportOptions(body_precision=arguments.body_precision, max_positions=4096)
    bundle = bundle_of(arguments.model, options, label=f"{arguments.body_precision}-bundle")
    print(f"\n{PROMPTS[0]!r} continued by the two-stage head:")
    print(Generator(bundle, threads=arguments.threads).generate(PROMPTS[0], max_new_tokens=48).text, "\n")
    report = compare(bundle, arguments)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"demo-{arguments.model}.json"
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_table(report)


def compare(bundle: Bundle, arguments: argparse.Namespace) -> dict[str, object]:
    """Measure all heads; the result is what goes into the JSON."""
    graphs = dense_graphs(bundle) | {
        "dense fp32": choose_graph(bundle, "dense"),
        PORTABLE: bundle.path / layout.DECODE_GRAPH,
        "two-stage": choose_graph(bundle, "decode"),
    }
    tokenizer = Tokenizer(bundle.path)
    prompts = [np.array([tokenizer.encode(text)], np.int64) for text in PROMPTS]
    body = bundle.manifest.body
    decoders = {head: Decoder(graphs[head], body, threads=arguments.threads, outputs=("token_ids",)) for head in HEADS}
    steps: dict[str, list[float]] = {head: [] for head in HEADS}
    rates: dict[str, list[float]] = {head: [] for head in HEADS}
    texts: dict[int, list[int]] = {}
    for head in HEADS:  # the first run of a session allocates
        decode(decoders[head], prompts[0], SETTLING)
    for _ in range(arguments.rounds):
        for number, prompt in enumerate(prompts):
            for head in HEADS:
                tokens, seconds = decode(decoders[head], prompt, arguments.new_tokens)
                steps[head].extend(seconds)
                rates[head].append(len(seconds) / sum(seconds))
                if head == "dense fp32":
                    texts[number] = tokens
    agreement = {head: agreement_on(decoders[head], prompts, texts) for head in HEADS}
    del decoders
    bytes_read = head_bytes(bundle)

    rows = [
        {
            "head": head,
            "tokens_per_second_p50": statistics.median(rates[head]),
            "step_ms_p50": statistics.median(steps[head]) * 1e3,
            "ratio_to_dense_int8": statistics.median(
                [mine / theirs for mine, theirs in zip(rates[head], rates["dense int8"], strict=True)]
            ),
            "agreement": agreement[head],
            "head_bytes_per_token": bytes_read[head],
            "peak_rss_bytes": peak_memory(graphs[head], bundle, prompts[0], arguments),
        }
        for head in HEADS
    ]

    index = bundle.manifest.index
    return {
        "model": arguments.model,
        "body_precision": body.precision,
        "machine": host_facts().as_dict(),
        "threads": arguments.threads,
        "native_kernels": native.kernels() if native.is_available() else None,
        "load_average_before": os.getloadavg()[0],
        "prompts": len(prompts),
        "new_tokens": arguments.new_tokens,
        "rounds": arguments.rounds,
        "num_clusters": index.num_clusters,
        "cluster_size": index.cluster_size,
        "num_probes": index.num_probes,
        "reduction": index.reduction,
        "rows": rows,
    }


def decode(decoder: Decoder, prompt: np.ndarray, new_tokens: int) -> tuple[list[int], list[float]]:
    """Greedy tokens after a prompt, and the seconds of every step that counts."""
    decoder.reset(positions=prompt.shape[1] + new_tokens + 1)
    token = decoder.run(prompt, greedy=True)[0]
    tokens, seconds = [int(token[0])], []
    for _ in range(new_tokens):
        start = time.perf_counter()
        token = decoder.run(token[:, None], greedy=True)[0]
        seconds.append(time.perf_counter() - start)
        tokens.append(int(token[0]))
    return tokens, seconds[SETTLING:]


def agreement_on(decoder: Decoder, prompts: list[np.ndarray], texts: dict[int, list[int]]) -> float:
    """Share of positions of the dense fp32 head's texts at which a head chooses the same token."""
    return agreement_with(decoder, [prompts[number] for number in texts], list(texts.values()))


def dense_graphs(bundle: Bundle) -> dict[str, Path]:
    """Join the body with dense int8 and int4 heads."""
    folder = WORK / f"{bundle.path.name}-dense"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    graphs = write_dense_graphs(bundle, ("int8", "int4"), folder)
    return {head.replace("-", " "): graph for head, graph in graphs.items()}


def head_bytes(bundle: Bundle) -> dict[str, int]:
    """Bytes of weights that each head reads for a token."""
    manifest = bundle.manifest
    vocab, width = manifest.vocab_size, manifest.hidden_size
    index = manifest.index
    blocks = -(-width // 32)
    row = {"fp32": width * 4, "int8": blocks * 36, "int4": blocks * 20}  # 32 codes and a float32 scale a block
    gathered = (index.num_probes * index.cluster_size + index.always_scored) * manifest.row_bytes
    native_graph = choose_graph(bundle, "dense").name.endswith(layout.NATIVE_SUFFIX)
    portable = index.num_clusters * row[index.centroid_precision] + gathered
    costs = stage_costs(manifest, head="two-stage", batch=1, positions=0, greedy=True, rescored=NUM_RESCORED)
    return {
        "dense fp32": vocab * (manifest.row_bytes if native_graph else row["fp32"]),  # ONNX Runtime widens a copy
        "dense int8": vocab * row["int8"],
        "dense int4": vocab * row["int4"],
        PORTABLE: portable,
        "two-stage": costs[CENTROIDS].bytes + costs[GATHER_DOT].bytes if native_graph else portable,
    }


def peak_memory(graph: Path, bundle: Bundle, prompt: np.ndarray, arguments: argparse.Namespace) -> int:
    """Peak resident memory of a fresh process that decodes with one head."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_decode_and_report, args=(graph, bundle, prompt, arguments.threads, send))
    process.start()
    peak = int(receive.recv())
    process.join()
    return peak


def _decode_and_report(graph: Path, bundle: Bundle, prompt: np.ndarray, threads: int, send: object) -> None:
    decode(Decoder(graph, bundle.manifest.body, threads=threads, outputs=("token_ids",)), prompt, 16)
    send.send(peak_rss_bytes())


def print_table(report: dict[str, object]) -> None:
    """Print the comparison for people."""
    print(f"{'head':<31}{'tok/s':>8}{'step ms':>9}{'x int8':>8}{'agreement':>11}{'head MB/token':>15}{'peak MB':>9}")
    for row in report["rows"]:
        print(
            f"{row['head']:<31}{row['tokens_per_second_p50']:>8.1f}{row['step_ms_p50']:>9.2f}"
            f"{row['ratio_to_dense_int8']:>8.2f}{row['agreement']:>11.4f}"
            f"{row['head_bytes_per_token'] / 1e6:>15.1f}{row['peak_rss_bytes'] / 1e6:>9.0f}"
        )


if __name__ == "__main__":
    sys.exit(main())
