"""Our clustering against the published recipe: time, peak memory and containment, on two shapes of head.

262,144 x 640 are the rows of Gemma 3 270M, clustered for its own states on the shipped calibration text and judged on
states of the texts in ``texts``, which had no part in it. 151,936 x 2,048 are random rows (see ``random_rows``): for
time and memory only. Every clustering runs alone in a fresh process. Writes ``results/clustering.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.clustering_worker import KMEANS, OURS
from flashhead_edge.platforms.host import host_facts

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "work"
GEMMA = "gemma3-270m"
CONTAINMENT_AT = (128, 256, 512, 1024)
#: Cluster size at which both are run: that of the published recipe.
COMMON_SIZE = 16
#: Peak memory of the process against the bytes of the float32 rows, and seconds by rows, that must hold on two cores.
MOST_MEMORY = 2.5
MOST_SECONDS = {262144: 30.0, 151936: 240.0}


def main() -> None:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small random shapes, printed and not written")
    parser.add_argument("--rows", type=Path, help="safetensors file with 'rows' [V, H] instead of the models' rows")
    parser.add_argument("--states", type=Path, help="states for --rows: safetensors file with 'hidden' [N, H]")
    parser.add_argument("--iterations", type=int, default=6, help="iterations of k-means; 0 leaves it out")
    parser.add_argument("--random-iterations", type=int, default=2, help="the same on random rows, for time alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON to write  [default: results/clustering.json]")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": host_facts().as_dict(),
        "faiss": metadata.version("faiss-cpu"),
        "commit": commit(),
        "threads": arguments.threads,
        "seed": arguments.seed,
        "load_average_before": os.getloadavg()[0],
        "limits": {
            "peak_over_rows": MOST_MEMORY,
            "seconds": {str(size): limit for size, limit in MOST_SECONDS.items()},
        },
        "shapes": [],
    }
    WORK.mkdir(exist_ok=True)
    for make in shapes(arguments):
        with tempfile.TemporaryDirectory(dir=WORK) as scratch:
            report["shapes"].append(measure_shape(make(Path(scratch)), Path(scratch), arguments))
    text = json.dumps(report, indent=2) + "\n"
    if arguments.quick and arguments.output is None:
        print(text)
        return
    target = arguments.output or RESULTS / "clustering.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    say(f"wrote {target.name}")


def shapes(arguments: argparse.Namespace) -> list[Any]:
    """What to measure: functions that write rows and states into a folder and describe them."""
    if arguments.rows is not None:
        return [lambda folder: from_files(folder, arguments.rows, arguments.states, arguments.seed)]
    if arguments.quick:
        return [lambda folder: random_shape(folder, 16384, 128, arguments.seed)]
    return [
        lambda folder: model_shape(folder, GEMMA),
        lambda folder: random_shape(folder, 151936, 2048, arguments.seed),
    ]


def measure_shape(shape: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every method on one shape."""
    from flashhead_edge.index.build import IndexOptions

    vocab, row_bytes = shape["vocab_size"], shape["vocab_size"] * shape["hidden_size"] * 4
    jobs = [(OURS, size, None) for size in dict.fromkeys([IndexOptions().cluster_size, COMMON_SIZE])]
    iterations = arguments.iterations if shape["held_out_states"] else arguments.random_iterations
    if iterations:
        jobs.append((KMEANS, COMMON_SIZE, iterations))
    tokens = dense_tokens(folder) if shape["held_out_states"] else None
    methods = []
    for method, size, iterations in jobs:
        clusters = -(-vocab // size)
        job = {
            "method": method,
            "rows": str(folder / "rows.npy"),
            "states": str(folder / "states.npy"),
            "clusters": str(folder / "clusters.npz"),
            "num_clusters": clusters,
            "iterations": iterations,
            "threads": arguments.threads,
            "seed": arguments.seed,
        }
        say(f"{shape['name']}: {method}, {clusters} clusters of {size}")
        figures = run_worker(job)
        entry = {"method": method, "num_clusters": clusters, "cluster_size": size, "iterations": iterations, **figures}
        entry["peak_over_rows"] = figures["peak_rss_bytes"] / row_bytes
        entry["containment"] = None if tokens is None else containment(folder, tokens)
        if method == OURS:
            limit = MOST_SECONDS.get(vocab)
            entry["within_limits"] = (
                None if limit is None else figures["seconds"] <= limit and entry["peak_over_rows"] <= MOST_MEMORY
            )
        say(f"  {figures['seconds']:.1f} s, {entry['peak_over_rows']:.2f} x the rows' bytes, {entry['containment']}")
        methods.append(entry)
    return {**shape, "row_bytes": row_bytes, "methods": methods}


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Run one clustering in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.clustering_worker", json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def random_rows(vocab: int, hidden: int, seed: int) -> npt.NDArray[np.float32]:
    """Rows that resemble a vocabulary: 2,000 centres and noise around them, with a spectrum that falls as i ** -0.4."""
    random = np.random.default_rng(seed)
    spectrum = (np.arange(1, hidden + 1) ** -0.4).astype(np.float32)
    centres = random.standard_normal((2000, hidden), dtype=np.float32)
    rows = np.empty((vocab, hidden), dtype=np.float32)
    for start in range(0, vocab, 8192):
        count = min(8192, vocab - start)
        noise = random.standard_normal((count, hidden), dtype=np.float32)
        rows[start : start + count] = (centres[random.integers(0, len(centres), count)] + noise) * spectrum
    return rows


def random_shape(folder: Path, vocab: int, hidden: int, seed: int) -> dict[str, Any]:
    """Random rows, and states with a mean and the rows' spectrum."""
    np.save(folder / "rows.npy", random_rows(vocab, hidden, seed))
    random = np.random.default_rng(seed + 1)
    spectrum = (np.arange(1, hidden + 1) ** -0.4).astype(np.float32)
    states = (random.standard_normal((8192, hidden), dtype=np.float32) + np.float32(0.5)) * spectrum
    np.save(folder / "states.npy", states)
    return describe(folder, f"{vocab:,} x {hidden:,}", "random rows and states")


def model_shape(folder: Path, name: str) -> dict[str, Any]:
    """Rows and states of a real model: the shipped calibration text, and the held-out texts."""
    from benchmarks.models import model_file
    from flashhead_edge.export.calibration import BUILTIN, calibrate
    from flashhead_edge.export.heads import read_head
    from flashhead_edge.export.models import load_model
    from flashhead_edge.export.sources import resolve_source
    from flashhead_edge.export.states import teacher_forced_states

    source = resolve_source(str(model_file(name)), offline=True)
    loaded = load_model(source)
    say(f"{name}: reading the calibration text and the held-out texts")
    calibration = calibrate(BUILTIN, lambda: loaded)
    held_out = teacher_forced_states(*loaded, held_out_passages())
    np.save(folder / "rows.npy", read_head(source).rows)
    np.save(folder / "states.npy", calibration.states.hidden)
    np.save(folder / "held_out.npy", held_out.hidden)
    return describe(folder, name, f"rows of {name}, states of the shipped calibration text; judged on benchmarks/texts")


def from_files(folder: Path, rows: Path, states: Path | None, seed: int) -> dict[str, Any]:
    """Rows and states of the user's; every fourth run of 64 states is held out."""
    from safetensors.numpy import load_file

    if states is None:
        raise SystemExit("--rows needs --states")
    hidden = load_file(states)["hidden"].astype(np.float32)
    held_out = (np.arange(len(hidden)) // 64 + seed) % 4 == 0
    np.save(folder / "rows.npy", load_file(rows)["rows"].astype(np.float32))
    np.save(folder / "states.npy", hidden[~held_out])
    np.save(folder / "held_out.npy", hidden[held_out])
    return describe(folder, rows.stem, f"rows of {rows.name}, states of {states.name}, a quarter of them held out")


def describe(folder: Path, name: str, data: str) -> dict[str, Any]:
    """Sizes of what was written."""
    rows, states = (np.load(folder / file, mmap_mode="r") for file in ("rows.npy", "states.npy"))
    held_out = folder / "held_out.npy"
    return {
        "name": name,
        "data": data,
        "vocab_size": rows.shape[0],
        "hidden_size": rows.shape[1],
        "calibration_states": len(states),
        "held_out_states": len(np.load(held_out, mmap_mode="r")) if held_out.exists() else 0,
    }


def held_out_passages() -> list[Any]:
    """The passages of ``texts``."""
    from flashhead_edge.export.states import Passage

    return [
        Passage(file.stem, passage.strip("\n"))
        for file in sorted((ROOT / "benchmarks" / "texts").glob("*.txt"))
        if file.stem != "prompts"
        for passage in file.read_text(encoding="utf-8").split("\n---\n")
    ]


def dense_tokens(folder: Path) -> Any:
    """What the dense head says of the held-out states, [N] int64."""
    import torch

    from flashhead_edge.index.dense import dense_argmax
    from flashhead_edge.lm_head import LmHead

    head = LmHead(np.load(folder / "rows.npy", mmap_mode="c"))
    return dense_argmax(head, torch.from_numpy(np.load(folder / "held_out.npy")))


def containment(folder: Path, tokens: Any) -> dict[str, float]:
    """Share of the held-out states whose dense token lies in one of the P best clusters, by P; float32 centroids."""
    import torch

    from flashhead_edge.index.build import cluster_ranks

    with np.load(folder / "clusters.npz") as clusters:
        members, centroids, offset = (torch.from_numpy(clusters[key]) for key in ("members", "centroids", "offset"))
    filled = members >= 0
    cluster = torch.empty(int(members.max()) + 1, dtype=torch.int64)
    cluster[members[filled]] = torch.arange(len(members)).unsqueeze(1).expand_as(members)[filled]
    states = torch.from_numpy(np.load(folder / "held_out.npy"))
    ranks = cluster_ranks(states, tokens, cluster, centroids, offset)
    return {str(probes): float((ranks < probes).float().mean()) for probes in CONTAINMENT_AT if probes <= len(members)}


def commit() -> str | None:
    """The commit that is measured, marked where files have changed since."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
