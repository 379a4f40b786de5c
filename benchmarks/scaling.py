"""How the head's time grows with vocabulary, width, probes and batch, and the clustering's with rows and width.

Heads are timed as in ``head_timing.py``: random rows, cold weights. Beside each time stand the two limits that no
program beats on this machine, bytes / bandwidth and operations / peak, and what ``flashhead-edge predict`` says.
Clusterings are those of ``clustering.py``, each in a process of its own, on random rows. Writes
``results/scaling.json``, a series at a time; ``plot_scaling.py`` draws it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clustering import random_shape, run_worker
from benchmarks.clustering_worker import OURS
from benchmarks.head_timing import Case, kernels, spread, time_cases, write_graphs
from benchmarks.models import RESULTS, WORK
from benchmarks.prediction import PLATFORM, case_head, dense, two_stage
from benchmarks.undisturbed import go_first
from flashhead_edge.bench.load import LoadMeter
from flashhead_edge.index.build import IndexOptions, most_states
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.prediction.coefficients import family_coefficients
from flashhead_edge.prediction.heads import two_stage_head
from flashhead_edge.prediction.limits import Limits, platform_limits
from flashhead_edge.prediction.roofline import predict_step
from flashhead_edge.prediction.shapes import ModelShape
from flashhead_edge.prediction.work import head_work
from flashhead_edge.profiling.peaks import stream_bandwidth

#: Calibration states that ``random_shape`` makes.
_STATES = 8192
_GEMMA = (262_144, 640)
_SHAPES = [(32_768, 640), (131_072, 640), (262_144, 640), (131_072, 2048), (262_144, 2048), (262_144, 4096)]


def main() -> None:
    """Measure the series that are named and write them beside those that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", nargs="+", choices=[*SERIES, "clustering"])
    parser.add_argument("--prepare", action="store_true", help="write the heads and stop")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", type=float, help="clock of the cores, GHz")
    parser.add_argument("--calls", type=int, default=12, help="undisturbed ones of each head")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which no new turn begins")
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--predict-only", action="store_true", help="predict what was measured again")
    arguments = parser.parse_args()
    if arguments.predict_only:
        predict_again(arguments.output, arguments.series)
        return
    for name in arguments.series:
        if name == "clustering":
            if not arguments.prepare:
                measure_clustering(arguments)
            continue
        graphs = write_graphs([case for _, case in SERIES[name]()], WORK / "heads")
        if not arguments.prepare:
            keep(arguments.output, name, measure_heads(name, graphs, arguments))


def by_probes() -> list[tuple[int, Case]]:
    """Probes, for Gemma's head."""
    return [
        (probes, two_stage(_GEMMA, probes, head))
        for probes in (16, 32, 64, 128, 256, 512, 1024, 2048)
        for head in ("native", "standard")
    ]


def by_batch() -> list[tuple[int, Case]]:
    """Batch, for Gemma's head."""
    return [(batch, case) for batch in (1, 2, 4, 8, 16, 32) for case in all_heads(_GEMMA, batch)]


def by_vocabulary() -> list[tuple[int, Case]]:
    """Vocabulary, at a width of 512."""
    return [(1024 * k, case) for k in (32, 64, 128, 256, 512) for case in all_heads((1024 * k, 512))]


def by_width() -> list[tuple[int, Case]]:
    """Hidden size, with a vocabulary of 65,536."""
    return [(width, case) for width in (512, 1024, 2048, 3072, 4096) for case in all_heads((65_536, width))]


SERIES: dict[str, Callable[[], list[tuple[int, Case]]]] = {
    "probes": by_probes,
    "batch": by_batch,
    "vocabulary": by_vocabulary,
    "width": by_width,
}


def all_heads(size: tuple[int, int], batch: int = 1) -> list[Case]:
    """The heads that are compared, two-stage ones with the default number of probes."""
    probes = two_stage_head(size[0]).opened
    stages = [two_stage(size, probes, head, batch) for head in ("native", "standard")]
    return [*stages, *(dense(size, precision, batch) for precision in ("int8", "int4"))]


def measure_heads(name: str, graphs: dict[Case, Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Time one series."""
    go_first()
    load, stream = os.getloadavg(), [stream_bandwidth(arguments.threads).value]
    times = time_cases(graphs, threads=arguments.threads, calls=arguments.calls, limit_s=arguments.limit)
    stream.append(stream_bandwidth(arguments.threads).value)
    limits = platform_limits(
        find_platform(PLATFORM),
        bandwidth_gb_s=max(stream),
        cores=arguments.threads,
        clock_ghz=arguments.clock,
    )
    points = [{"value": value, **point(case, limits), **spread(times[case])} for value, case in SERIES[name]()]
    return {
        **circumstances(arguments, load),
        "kernels": kernels(),
        "bandwidth_gb_s": round(limits.bandwidth_gb_s, 2),
        "operations_g_s": limits.operations_g_s,
        "calls": min(map(len, times.values())),
        "points": points,
    }


def predict_again(output: Path, names: list[str]) -> None:
    """Predict measured heads with the coefficients of now."""
    report = json.loads(output.read_text(encoding="utf-8"))
    for name in names:
        series = report[name]
        limits = Limits(*[series["bandwidth_gb_s"]] * 2, "given", series["operations_g_s"], None)
        for row in series["points"]:
            row |= point(Case(**{field.name: row[field.name] for field in fields(Case)}), limits)
        keep(output, name, series)


def point(case: Case, limits: Limits) -> dict[str, Any]:
    """A case, what is predicted of it, and what no program beats."""
    platform, head = find_platform(PLATFORM), case_head(case.as_dict())
    model = ModelShape("rows", case.vocab_size, case.hidden_size)
    profile = predict_step(model, head, platform, limits, batch=case.batch)
    work = head_work(
        case.vocab_size,
        case.hidden_size,
        head,
        batch=case.batch,
        blocks=family_coefficients(platform).blocks,
    )
    computing = sum(part.operations / (limits.peak(part.precision) or np.inf) for part in work)
    return {
        **case.as_dict(),
        "predicted_ms": round(profile.step_ms, 4),
        "bytes_ms": round(sum(part.bytes for part in work) / limits.bandwidth_gb_s / 1e6, 4),
        "operations_ms": round(computing / 1e6, 4),
    }


def measure_clustering(arguments: argparse.Namespace) -> None:
    """Time clusterings and look at their memory; each is kept when it is done, as the large ones take minutes."""
    go_first()
    load, points = os.getloadavg(), []
    limits = platform_limits(
        find_platform(PLATFORM),
        bandwidth_gb_s=stream_bandwidth(arguments.threads).value,
        cores=arguments.threads,
        clock_ghz=arguments.clock,
    )
    peak = limits.operations_g_s["fp32"]
    for vocab, hidden in _SHAPES:
        with tempfile.TemporaryDirectory(dir=WORK) as scratch:
            folder = Path(scratch)
            random_shape(folder, vocab, hidden, seed=0)
            job = {
                "method": OURS,
                "rows": str(folder / "rows.npy"),
                "states": str(folder / "states.npy"),
                "clusters": str(folder / "clusters.npz"),
                "num_clusters": IndexOptions().num_clusters(vocab),
                "threads": arguments.threads,
                "seed": 0,
            }
            meter = LoadMeter()
            found = run_worker(job) | {"other_load": round(meter.other_load(), 2)}
        states = min(_STATES, most_states(vocab, hidden))
        # Every row is projected, and scored for every state that centroids are fitted to.
        operations = 2 * vocab * hidden * (states + IndexOptions.rank)
        points.append(
            {
                "vocab_size": vocab,
                "hidden_size": hidden,
                "row_bytes": vocab * hidden * 4,
                "operations": operations,
                "operations_s": round(operations / peak / 1e9, 2),
                **found,
            }
        )
        print(f"{vocab} x {hidden}: {found['seconds']:.1f} s, {found['peak_rss_bytes'] / 2**30:.2f} GiB", flush=True)
        series = {**circumstances(arguments, load), "operations_g_s": limits.operations_g_s, "points": points}
        keep(arguments.output, "clustering", series)


def circumstances(arguments: argparse.Namespace, load: tuple[float, float, float]) -> dict[str, Any]:
    """Where and how it was measured."""
    return {
        "machine": host_facts().as_dict(),
        "threads": arguments.threads,
        "clock_ghz": arguments.clock,
        "load_average_before": load,
    }


def keep(output: Path, name: str, series: dict[str, Any]) -> None:
    """Write one series beside the others."""
    report = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    report[name] = series
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
