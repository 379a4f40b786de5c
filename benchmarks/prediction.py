"""Predictions against measurements on this machine: heads alone with cold weights, and whole steps of two models.

The numbers of ``flashhead_edge/prediction/coefficients.py`` for CPUs are fitted to the calibration cases, which are
heads of two sizes and the body of SmolLM2. They are judged by the others: heads of other sizes, other clusters, probes
and batches, and the steps of Gemma 3 270M. All are measured in turn in one run, with the bandwidth of the memory before
and after. Writes ``results/prediction.json``.

``--prepare`` only writes the heads, which takes minutes, and nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fitting import fit_coefficients, ratio_errors
from benchmarks.head_timing import Case, kernels, spread, time_cases, write_graphs
from benchmarks.model_steps import BODY_ALONE, measure_steps
from benchmarks.models import RESULTS, WORK
from benchmarks.undisturbed import go_first
from flashhead_edge.bundle import Bundle
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.prediction.coefficients import Coefficients, family_coefficients
from flashhead_edge.prediction.heads import HeadOptions, named_head
from flashhead_edge.prediction.limits import Limits, platform_limits
from flashhead_edge.prediction.model_shapes import bundle_shape
from flashhead_edge.prediction.roofline import predict_step
from flashhead_edge.prediction.shapes import DENSE, TWO_STAGE, BodyShape, HeadShape, ModelShape
from flashhead_edge.profiling.peaks import stream_bandwidth
from flashhead_edge.profiling.record import Profile

PLATFORM = "x86-cpu-avx512-vnni"
#: What heads alone are fitted with, and where the fit begins. Others stand fast: with heads of two widths alone, the
#: time of comparisons cannot be told from that of operations, nor that of starting a stage from that of the step.
HEAD_COEFFICIENTS = {
    "bandwidth_share": 0.8,
    "gather_share": 0.8,
    "compute_share": 0.1,
    "copy_share": 0.5,
    "step_us": 100.0,
}
STEPS_FITTED_TO = "smollm2"
#: After everything else; memory is as fast as the fastest of all says.
_STREAM_TESTS = 5


def two_stage(size: tuple[int, int], probes: int, head: str = "native", batch: int = 1, **options: Any) -> Case:
    """A two-stage case; clusters of 32 and int8 centroids unless said otherwise."""
    options = {"cluster_size": 32, "centroid_precision": "int8"} | options
    return Case(head, *size, batch=batch, num_probes=probes, **options)


def dense(size: tuple[int, int], precision: str, batch: int = 1) -> Case:
    """A dense case."""
    return Case("dense", *size, batch=batch, precision=precision)


def calibration_cases() -> list[Case]:
    """What coefficients are fitted to."""
    large, small = (65_536, 1024), (16_384, 256)
    cases = [dense(large, precision, batch) for precision in ("int8", "int4") for batch in (1, 4, 16)]
    cases += [dense(large, "fp32"), dense(small, "int8")]
    cases += [two_stage(large, probes, head) for head in ("native", "standard") for probes in (64, 256, 512)]
    cases += [two_stage(large, 256, batch=4), two_stage(large, 256, batch=16), two_stage(large, 256, "standard", 4)]
    cases += [two_stage(large, 256, centroid_precision="int4"), two_stage(large, 256, cluster_size=16)]
    cases += [two_stage(large, 512, low_bit_rows="int8"), two_stage(large, 512, low_bit_rows="int4")]
    return [*cases, two_stage(small, 16), two_stage(small, 16, "standard")]


def validation_cases() -> list[Case]:
    """What predictions are judged by: the heads of Gemma 3 270M, SmolLM2, Llama 3.2 1B and Qwen3 0.6B by shape."""
    gemma, smollm, llama, qwen = (262_144, 640), (49_152, 576), (128_256, 2048), (151_936, 1024)
    cases = [dense(size, precision) for size in (gemma, smollm, llama, qwen) for precision in ("int8", "int4")]
    cases += [dense(gemma, "int8", 4), dense(gemma, "int8", 8), dense(smollm, "int4", 8), dense(smollm, "fp32")]
    cases += [two_stage(gemma, probes) for probes in (64, 128, 256, 374, 768)]
    cases += [two_stage(gemma, 374, batch=batch) for batch in (2, 4, 8, 16)]
    cases += [two_stage(gemma, 374, "standard", batch) for batch in (1, 2, 4)] + [two_stage(gemma, 128, "standard")]
    cases += [two_stage(gemma, 512, cluster_size=16), two_stage(gemma, 128, cluster_size=64)]
    cases += [two_stage(gemma, 512, centroid_precision="int4")]
    cases += [two_stage(gemma, 768, low_bit_rows=low) for low in ("int8", "int4")]
    cases += [two_stage(smollm, 113, head, batch) for head in ("native", "standard") for batch in (1, 4)]
    cases += [two_stage(llama, 183), two_stage(llama, 501, cluster_size=16), two_stage(llama, 183, "standard")]
    cases += [two_stage(llama, 183, batch=8), two_stage(llama, 183, low_bit_rows="int8")]
    return [*cases, two_stage(qwen, 217), two_stage(qwen, 217, "standard"), two_stage(qwen, 217, batch=4)]


def main() -> None:
    """Measure, fit, predict and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "bundles", nargs="*", metavar="NAME=FOLDER", help=f"for whole steps; fitted to {STEPS_FITTED_TO}"
    )
    parser.add_argument("--prepare", action="store_true", help="write the heads and stop")
    parser.add_argument("--fit-only", action="store_true", help="fit and predict again from the measurements written")
    parser.add_argument("--steps-only", action="store_true", help="keep the heads that were timed, time steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", type=float, help="clock of the cores, GHz")
    parser.add_argument("--calls", type=int, default=16, help="undisturbed ones of each head")
    parser.add_argument("--limit", type=float, default=200, help="seconds after which no new turn begins")
    parser.add_argument("--output", type=Path, default=RESULTS / "prediction.json")
    arguments = parser.parse_args()
    if arguments.fit_only or arguments.steps_only:
        report = json.loads(arguments.output.read_text(encoding="utf-8"))
    else:
        graphs = write_graphs([*calibration_cases(), *validation_cases()], WORK / "heads")
        if arguments.prepare:
            return
        report = measure_heads(arguments, graphs)
        keep(report, arguments.output)  # should the steps fail, the heads need not be timed again
    if not arguments.fit_only:
        report["steps"] = [steps_of(text, arguments.threads) for text in arguments.bundles]
        report["stream_gb_s"] += [round(stream_bandwidth(arguments.threads).value, 2) for _ in range(_STREAM_TESTS)]
        one = [stream_bandwidth(1).value for _ in range(_STREAM_TESTS)]
        report["stream_gb_s_one_thread"] = max(report["stream_gb_s_one_thread"], *(round(value, 2) for value in one))
    keep(report, arguments.output)
    print(json.dumps({key: report[key] for key in ("coefficients", "errors")}, indent=2))


def keep(report: dict[str, Any], output: Path) -> None:
    """Fit, predict, and write."""
    report |= judge(report)
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def steps_of(text: str, threads: int) -> dict[str, Any]:
    """Time steps of NAME=FOLDER."""
    name, folder = text.split("=", 1)
    bundle = Bundle.open(folder)
    model, head = bundle_shape(bundle)
    return {
        "model": name,
        "shape": asdict(model),
        "head": asdict(head),
        "measured": measure_steps(bundle, threads=threads),
    }


def measure_heads(arguments: argparse.Namespace, graphs: dict[Case, Path]) -> dict[str, Any]:
    """Time every head."""
    load, threads = os.getloadavg(), arguments.threads
    go_first()
    stream = [stream_bandwidth(threads).value]
    times = time_cases(graphs, threads=threads, calls=arguments.calls, limit_s=arguments.limit)
    stream.append(stream_bandwidth(threads).value)
    return {
        "machine": host_facts().as_dict(),
        "kernels": kernels(),
        "threads": threads,
        "clock_ghz": arguments.clock,
        "load_average_before": load,
        "stream_gb_s": [round(value, 2) for value in stream],
        "stream_gb_s_one_thread": round(stream_bandwidth(1).value, 2),
        "calls": min(map(len, times.values())),
        "calibration": [case.as_dict() | spread(times[case]) for case in calibration_cases()],
        "validation": [case.as_dict() | spread(times[case]) for case in validation_cases()],
        "steps": [],
    }


def judge(report: dict[str, Any]) -> dict[str, Any]:
    """Fit to the calibration, and predict everything with that.

    Args:
        report: With measurements.

    Returns:
        What is new or changed in it.
    """
    limits = platform_limits(
        find_platform(PLATFORM),
        bandwidth_gb_s=max(report["stream_gb_s"] + streams_beside(report["machine"])),
        cores=report["threads"],
        clock_ghz=report["clock_ghz"],
    )
    predictor = Predictor(limits)
    start = replace(family_coefficients(predictor.platform), **HEAD_COEFFICIENTS)
    heads = [(partial(predictor.head_ms, row), row["ms_p50"]) for row in report["calibration"]]
    fitted = fit_coefficients(heads, start, tuple(HEAD_COEFFICIENTS))

    def own_steps(head: str) -> list[tuple[Callable[[Coefficients], float], float]]:
        """What steps are fitted to."""
        return [
            (partial(predictor.step_ms, model, row), row["ms_p50"])
            for model in report["steps"]
            if model["model"] == STEPS_FITTED_TO
            for row in model["measured"]
            if row["head"] == head
        ]

    bodies = own_steps(BODY_ALONE)
    if bodies:
        fitted = fit_coefficients(bodies, fitted, ("layer_us",))
        fitted = fit_coefficients(own_steps("two-stage-portable"), fitted, ("standard_layer_us",))
    rows = {
        key: [row | _compared(predictor.head_ms(row, fitted), row["ms_p50"]) for row in report[key]]
        for key in ("calibration", "validation")
    }
    steps = [
        model
        | {
            "measured": [
                row | _compared(predictor.step_ms(model, row, fitted), row["ms_p50"]) for row in model["measured"]
            ]
        }
        for model in report["steps"]
    ]
    judged = [row["ratio"] for model in steps if model["model"] != STEPS_FITTED_TO for row in model["measured"]]
    names = (*HEAD_COEFFICIENTS, *(["layer_us", "standard_layer_us"] if bodies else []))
    return {
        "bandwidth_gb_s": round(limits.bandwidth_gb_s, 2),
        "coefficients": {name: getattr(fitted, name) for name in names},
        "errors": {
            "calibration": ratio_errors([row["ratio"] for row in rows["calibration"]]),
            "validation": ratio_errors([row["ratio"] for row in rows["validation"]]),
            **({"steps": ratio_errors(judged)} if judged else {}),
        },
        **rows,
        "steps": steps,
    }


def case_head(row: dict[str, Any]) -> HeadShape:
    """The head of a case, as a row says."""
    if row["head"] == DENSE:
        return HeadShape(DENSE, row["precision"])
    return HeadShape(
        TWO_STAGE,
        row["precision"],
        num_clusters=-(-row["vocab_size"] // row["cluster_size"]),
        cluster_size=row["cluster_size"],
        num_probes=row["num_probes"],
        centroid_precision=row["centroid_precision"],
        low_bit_rows=row["low_bit_rows"],
        fused=row["head"] == "native",
    )


def streams_beside(machine: dict[str, Any]) -> list[float]:
    """What stream tests of ``scaling.py`` reached on the same machine: one that others disturbed says too little."""
    path = RESULTS / "scaling.json"
    series = json.loads(path.read_text(encoding="utf-8")).values() if path.is_file() else ()
    return [part["bandwidth_gb_s"] for part in series if "bandwidth_gb_s" in part and part["machine"] == machine]


class Predictor:
    """Predicts what was measured.

    Args:
        limits: Of this machine.
    """

    def __init__(self, limits: Limits) -> None:
        self.platform = find_platform(PLATFORM)
        self._limits = limits

    def head_ms(self, row: dict[str, Any], coefficients: Coefficients) -> float:
        """A head alone, as a row of a case says."""
        model = ModelShape("rows", row["vocab_size"], row["hidden_size"])
        return self._predict(model, case_head(row), coefficients, batch=row["batch"]).step_ms

    def step_ms(self, model: dict[str, Any], row: dict[str, Any], coefficients: Coefficients) -> float:
        """A whole step of a bundle's model, or its body alone."""
        shape = ModelShape(**model["shape"] | {"body": BodyShape(**model["shape"]["body"])})
        alone = row["head"] == BODY_ALONE
        name = "two-stage" if alone else row["head"]
        head = named_head(name, shape.vocab_size, HeadOptions(), HeadShape(**model["head"]))
        profile = self._predict(shape, head, coefficients, positions=row["positions"])
        return profile.step_ms - (profile.head_ms if alone else 0)

    def _predict(self, model: ModelShape, head: HeadShape, coefficients: Coefficients, **options: int) -> Profile:
        return predict_step(model, head, self.platform, self._limits, reached=coefficients, **options)


def _compared(predicted: float, measured: float) -> dict[str, float]:
    return {"predicted_ms": round(predicted, 4), "ratio": round(predicted / measured, 3)}


if __name__ == "__main__":
    main()
