"""Predictions for a data centre GPU beside what was measured on one: ``python -m benchmarks.gpu_prediction``.

Nothing is measured here: heads alone are those of ``results/gpu-head.json``. No coefficient was fitted to them; data
centre GPUs borrow those of GeForce cards. Writes ``results/gpu-prediction.json``.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.fitting import ratio_errors
from benchmarks.models import RESULTS
from flashhead_edge.files import write_text
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.prediction.limits import platform_limits
from flashhead_edge.prediction.roofline import predict_step
from flashhead_edge.prediction.shapes import DENSE, TWO_STAGE, HeadShape, ModelShape

PLATFORM = "nvidia-h200"


def main() -> None:
    """Predict and write."""
    measured = json.loads((RESULTS / "gpu-head.json").read_text(encoding="utf-8"))
    rows = [row for head in measured["heads"] for row in compare(head)]
    errors = {
        kind: ratio_errors([row[f"{kind}_predicted_us"] / row[f"{kind}_us"] for row in rows])
        for kind in ("dense", "two_stage")
    }
    report = {"platform": PLATFORM, "gpu": measured["gpu"], "errors": errors, "rows": rows}
    write_text(RESULTS / "gpu-prediction.json", json.dumps(report, indent=2) + "\n")
    print(json.dumps(errors, indent=2))


def compare(head: dict[str, Any]) -> list[dict[str, Any]]:
    """A measured head by batch, with its predictions."""
    platform = find_platform(PLATFORM)
    limits = platform_limits(platform)
    model = ModelShape(head["head"], head["vocab_size"], head["hidden_size"])
    clusters = head["num_clusters"]
    shapes = {
        "dense": HeadShape(DENSE),
        "two_stage": HeadShape(
            TWO_STAGE,
            num_clusters=clusters,
            cluster_size=-(-head["vocab_size"] // clusters),
            num_probes=head["num_probes"],
            centroid_precision="int8",
        ),
    }
    rows = []
    for point in head["points"]:
        row = {"head": head["head"], "batch": point["batch"]}
        for kind, shape in shapes.items():
            predicted = predict_step(model, shape, platform, limits, batch=point["batch"])
            row |= {f"{kind}_us": point[f"{kind}_us"], f"{kind}_predicted_us": round(1e3 * predicted.step_ms, 1)}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
