"""Predictions against what others published, from the shapes of their models alone.

The coefficients of Jetson boards and of GeForce cards are fitted to published steps with dense heads. They are judged
by the steps with two-stage heads on the same boards, by published calls of a head alone, and by ratios of heads that
were measured elsewhere on a CPU. ``published/speed.json`` has the figures and where they come from. Nothing is measured
here. Writes ``results/published-speed.json``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fitting import fit_coefficients, ratio_errors
from benchmarks.models import RESULTS
from flashhead_edge.export.model_config import ModelConfig
from flashhead_edge.export.model_types import model_type_named
from flashhead_edge.platforms.catalog import Catalog, load_catalog
from flashhead_edge.prediction.coefficients import Coefficients, family_coefficients
from flashhead_edge.prediction.limits import platform_limits
from flashhead_edge.prediction.model_shapes import model_shape
from flashhead_edge.prediction.roofline import predict_step
from flashhead_edge.prediction.shapes import DENSE, TWO_STAGE, HeadShape, ModelShape

PUBLISHED = Path(__file__).resolve().parent / "published"
#: What is fitted, and where the fit begins.
FITTED = {"bandwidth_share": 0.8, "layer_us": 50.0}
_BODIES = {"bf16": "fp16", "W4A16": "int4"}
_POSITIONS = 128
#: Their machine is not named; ratios are taken on one core of the one that ``results/prediction.json`` was measured on.
_TURBOHEAD_PLATFORM = "x86-cpu-avx512-vnni"


def main() -> None:
    """Fit, predict and write."""
    published = json.loads((PUBLISHED / "speed.json").read_text(encoding="utf-8"))
    catalog = load_catalog([PUBLISHED / "platforms.toml"])
    families: dict[str, list[dict[str, Any]]] = {}
    for row in published["steps"]:
        families.setdefault(catalog.find(row["platform"]).family, []).append(row)
    coefficients = {name: fit(rows, published, catalog) for name, rows in families.items()}
    steps = [
        compare_steps(row, published, catalog, coefficients[name]) for name, rows in families.items() for row in rows
    ]
    calls = [compare_call(row, catalog, coefficients) for row in published["calls"]]
    ratios = turbohead(published, catalog)
    speedups = [row for row in steps if row["published_speedup"] is not None]
    report = {
        "sources": published["sources"],
        "coefficients": {
            family: {name: getattr(found, name) for name in FITTED} for family, found in coefficients.items()
        },
        "errors": {
            "speedups": ratio_errors([row["predicted_speedup"] / row["published_speedup"] for row in speedups]),
            "calls": ratio_errors([row["predicted_us"] / row["call_us"] for row in calls]),
            "turbohead": ratio_errors([row["predicted"] / row["published"] for row in ratios]),
            "two_stage_steps": {
                family: ratio_errors(
                    [row["two_stage"] / row["predicted_two_stage"] for row in speedups if row["family"] == family]
                )
                for family in families
            },
        },
        "steps": steps,
        "calls": calls,
        "turbohead": ratios,
        "not_predicted": published["not_predicted"],
    }
    (RESULTS / "published-speed.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in ("coefficients", "errors")}, indent=2))


def shape_of(published: dict[str, Any], name: str, body_precision: str) -> ModelShape:
    """A published model."""
    config = published["models"][name]
    return model_shape(
        ModelConfig(config, config, model_type_named(config["model_type"])), name, body_precision=body_precision
    )


def flash_head(vocab_size: int, *, fused: bool = True) -> HeadShape:
    """The published head: K = V / 16 clusters, K / 16 probes, everything in half precision."""
    clusters = vocab_size // 16
    return HeadShape(
        TWO_STAGE,
        num_clusters=clusters,
        cluster_size=16,
        num_probes=clusters // 16,
        centroid_precision="fp16",
        fused=fused,
    )


def step_ms(
    row: dict[str, Any], published: dict[str, Any], catalog: Catalog, head: HeadShape, coefficients: Coefficients
) -> float:
    """Predict a published step."""
    platform = catalog.find(row["platform"])
    model = shape_of(published, row["model"], _BODIES[row["body"]])
    limits = platform_limits(platform)
    return predict_step(model, head, platform, limits, positions=_POSITIONS, reached=coefficients).step_ms


def fit(rows: list[dict[str, Any]], published: dict[str, Any], catalog: Catalog) -> Coefficients:
    """Fit a family to its steps with dense heads; no published figure parts opened rows from others."""
    start = replace(family_coefficients(catalog.find(rows[0]["platform"])), **FITTED)
    cases = [
        (
            lambda found, row=row: step_ms(row, published, catalog, HeadShape(DENSE), found),
            1e3 / row["dense"],
        )
        for row in rows
    ]
    fitted = fit_coefficients(cases, start, tuple(FITTED))
    return replace(fitted, gather_share=fitted.bandwidth_share)


def compare_steps(
    row: dict[str, Any], published: dict[str, Any], catalog: Catalog, coefficients: Coefficients
) -> dict[str, Any]:
    """A published step beside its prediction, tokens a second."""
    model = shape_of(published, row["model"], "fp16")
    predict = partial(step_ms, row, published, catalog, coefficients=coefficients)
    dense, two_stage = predict(head=HeadShape(DENSE)), predict(head=flash_head(model.vocab_size))
    saved = None if row["two_stage"] is None else 1e3 / row["dense"] - 1e3 / row["two_stage"]
    return {
        **row,
        "family": catalog.find(row["platform"]).family,
        "predicted_dense": round(1e3 / dense, 1),
        "predicted_two_stage": round(1e3 / two_stage, 1),
        "published_speedup": None if saved is None else round(row["two_stage"] / row["dense"], 3),
        "predicted_speedup": round(dense / two_stage, 3),
        "saved_ms": None if saved is None else round(saved, 3),
        "saved_ms_at_peak": round(_saved_at_peak(model, platform_limits(catalog.find(row["platform"])).stream_gb_s), 3),
    }


def _saved_at_peak(model: ModelShape, bandwidth_gb_s: float) -> float:
    """What reading fewer bytes of the head saves if memory delivers its peak, milliseconds."""
    head = flash_head(model.vocab_size)
    rows = model.vocab_size - head.num_clusters - head.num_probes * head.cluster_size
    return rows * model.hidden_size * 2 / bandwidth_gb_s / 1e6


def compare_call(row: dict[str, Any], catalog: Catalog, coefficients: dict[str, Coefficients]) -> dict[str, Any]:
    """A published call of a head alone beside its prediction; other families borrow from GeForce."""
    platform = catalog.find(row["platform"])
    head = flash_head(row["vocab_size"], fused=row["head"] == TWO_STAGE)
    model = ModelShape(row["model"], row["vocab_size"], row["hidden_size"])
    reached = coefficients.get(platform.family, coefficients["geforce"])
    profile = predict_step(model, head, platform, platform_limits(platform), reached=reached)
    return {**row, "predicted_us": round(profile.head_ms * 1e3, 1)}


def turbohead(published: dict[str, Any], catalog: Catalog) -> list[dict[str, Any]]:
    """Published ratios against the dense float32 head, one thread, int4 body, and ours."""
    measured = json.loads((RESULTS / "prediction.json").read_text(encoding="utf-8"))
    platform = catalog.find(_TURBOHEAD_PLATFORM)
    limits = platform_limits(
        platform, bandwidth_gb_s=measured["stream_gb_s_one_thread"], cores=1, clock_ghz=measured["clock_ghz"]
    )
    rows = []
    for row in published["turbohead"]:
        model = shape_of(published, row["model"], "int4")
        clusters = -(-model.vocab_size // 16)
        heads = {
            "dense_int8": HeadShape(DENSE, "int8"),
            "dense_int4": HeadShape(DENSE, "int4"),
            "two_stage": HeadShape(
                TWO_STAGE,
                "int8",
                num_clusters=clusters,
                cluster_size=16,
                num_probes=256,
                centroid_precision="int4",
            ),
        }
        times = {
            name: predict_step(model, head, platform, limits, positions=_POSITIONS) for name, head in heads.items()
        }
        dense = predict_step(model, HeadShape(DENSE, "fp32"), platform, limits, positions=_POSITIONS).step_ms
        rows += [
            {
                "model": row["model"],
                "head": name,
                "published": row[name],
                "predicted": round(dense / profile.step_ms, 3),
            }
            for name, profile in times.items()
        ]
    return rows


if __name__ == "__main__":
    main()
