"""How fast whole models decode on the runtimes that are installed here, and what memory they take.

Each runtime runs in a process of its own, in turn, over several rounds. Writes ``results/runtimes.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from benchmarks.demo import PROMPTS
from benchmarks.models import MODELS, RESULTS, bundle_of
from flashhead_edge import Bundle, Generator
from flashhead_edge.bench.load import LoadMeter
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.memory import peak_rss_bytes
from flashhead_edge.platforms.host import host_facts

RUNTIMES = ("onnxruntime", "openvino")
NEW_TOKENS = 64


def main() -> None:
    """Measure every model on every runtime, or be the process of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", nargs=2, metavar=("BUNDLE", "RUNTIME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(alone(*arguments.alone, threads=arguments.threads)))
        return
    load = LoadMeter()
    rows = [row for name in MODELS for row in measure(name, arguments.rounds, arguments.threads)]
    report = {
        "machine": host_facts().as_dict(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "new_tokens": NEW_TOKENS,
        "other_load_cores": load.other_load(),
        "rows": rows,
    }
    (RESULTS / "runtimes.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))


def measure(name: str, rounds: int, threads: int) -> list[dict[str, object]]:
    """A row for each runtime."""
    bundle = bundle_of(name, ExportOptions(body_precision="int4", max_positions=4096), label="int4-bundle")
    found: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(rounds):
        for runtime in RUNTIMES:
            command = [sys.executable, "-m", "benchmarks.runtimes", "--threads", str(threads)]
            command += ["--alone", str(bundle.path), runtime]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[runtime].append(json.loads(done.stdout))
    return [
        {
            "model": name,
            "runtime": runtime,
            "tokens_per_second_p50": statistics.median(turn["tokens_per_second"] for turn in turns),
            "peak_rss_bytes": max(turn["peak_rss_bytes"] for turn in turns),
        }
        for runtime, turns in found.items()
    ]


def alone(bundle: str, runtime: str, *, threads: int) -> dict[str, float]:
    """One runtime in this process: the median speed of some texts, and the most memory."""
    generator = Generator(Bundle.open(bundle, verify=False), runtime=runtime, threads=threads)
    generator.generate(PROMPTS[0], max_new_tokens=8)
    texts = [generator.generate(prompt, max_new_tokens=NEW_TOKENS) for prompt in PROMPTS]
    return {
        "tokens_per_second": statistics.median(text.tokens_per_second or 0.0 for text in texts),
        "peak_rss_bytes": peak_rss_bytes(),
    }


if __name__ == "__main__":
    sys.exit(main())
