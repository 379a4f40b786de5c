"""Tables of predictions beside what was measured or published, and of how heads and clusterings grow."""

from __future__ import annotations

from benchmarks.fitting import ratio_errors
from benchmarks.markdown import Report, markdown

HEAD_SERIES = ("vocabulary", "width", "probes", "batch")
_ERROR_HEAD = ("cases", "number", "median error", "90 % are within", "greatest error")


def errors(report: Report) -> str:
    """How far predictions were off on the machine that was measured."""
    names = {
        "calibration": "heads that the coefficients were fitted to",
        "validation": "other heads",
        "steps": "steps of a model that nothing was fitted to",
    }
    stream, threads = report["stream_gb_s"], report["threads"]
    machine = (
        f"{threads} threads of {report['machine']['cpu_model']}, kernels {report['kernels']}; "
        f"stream tests of the run reached {min(stream):.1f} to {max(stream):.1f} GB/s on {threads} threads and "
        f"{report['stream_gb_s_one_thread']:.1f} GB/s on one. The fastest counts, of those of `scaling.py` on the same "
        f"machine too: {report['bandwidth_gb_s']:.1f} GB/s."
    )
    rows = [(words, *_errors(report["errors"][key])) for key, words in names.items() if key in report["errors"]]
    return f"{machine}\n\n{markdown(_ERROR_HEAD, rows)}"


def heads(report: Report) -> str:
    """Every head that predictions are judged by."""
    rows = [
        (
            f"{row['vocab_size']:,} x {row['hidden_size']:,}",
            _head(row),
            "-" if not row["num_probes"] else f"{row['num_probes']} of {row['cluster_size']}",
            str(row["batch"]),
            f"{row['ms_p50']:.2f}",
            f"{row['ms_p10']:.2f} to {row['ms_p90']:.2f}",
            f"{row['predicted_ms']:.2f}",
            f"{row['ratio']:.2f}",
        )
        for row in report["validation"]
    ]
    titles = ("V x H", "head", "clusters opened", "batch", "measured ms", "80 % of calls", "predicted ms", "ratio")
    return markdown(titles, rows)


def steps(report: Report) -> str:
    """Whole steps of models."""
    rows = [
        (
            model["model"],
            row["head"],
            f"{row['ms_p50']:.2f}",
            f"{row['ms_p10']:.2f} to {row['ms_p90']:.2f}",
            f"{row['predicted_ms']:.2f}",
            f"{row['ratio']:.2f}",
        )
        for model in report["steps"]
        for row in model["measured"]
    ]
    return markdown(("model", "head", "measured ms", "80 % of steps", "predicted ms", "ratio"), rows)


def coefficients(report: Report) -> str:
    """What was fitted."""
    return markdown(
        ("coefficient", "CPUs"),
        [(name.replace("_", " "), f"{value:g}") for name, value in report["coefficients"].items()],
    )


def published_errors(report: Report) -> str:
    """How far predictions were off what others published."""
    found = report["errors"]
    rows = [
        ("speed-ups of whole models", *_errors(found["speedups"])),
        *(
            (f"steps with two-stage heads, {family}", *_errors(error))
            for family, error in found["two_stage_steps"].items()
        ),
        ("calls of a head alone", *_errors(found["calls"])),
        ("ratios of heads on a CPU", *_errors(found["turbohead"])),
    ]
    return markdown(_ERROR_HEAD, rows)


def published_speedups(report: Report) -> str:
    """Published speed-ups of whole models."""
    rows = [
        (
            row["model"],
            row["platform"],
            row["body"],
            f"{row['dense']:g} to {row['two_stage']:g}",
            f"{row['predicted_dense']:g} to {row['predicted_two_stage']:g}",
            f"{row['published_speedup']:.2f}",
            f"{row['predicted_speedup']:.2f}",
            f"{row['predicted_speedup'] / row['published_speedup'] - 1:+.0%}",
            f"{row['saved_ms'] / row['saved_ms_at_peak']:.2f}",
        )
        for row in report["steps"]
        if row["published_speedup"] is not None
    ]
    titles = ("model", "platform", "body", "tok/s published", "tok/s predicted", "x published", "x predicted", "error")
    return markdown((*titles, "saved / possible"), rows)


def published_calls(report: Report) -> str:
    """Published calls of a head alone."""
    kinds = {"two-stage": "fused", "two-stage-portable": "gather apart"}
    rows = [
        (
            row["platform"],
            kinds[row["head"]],
            f"{row['call_us']:g}",
            f"{row['predicted_us']:.0f}",
            f"{row['predicted_us'] / row['call_us'] - 1:+.0%}",
        )
        for row in report["calls"]
    ]
    return markdown(("platform", "head", "microseconds published", "predicted", "error"), rows)


def published_ratios(report: Report) -> str:
    """Published ratios of heads on a CPU."""
    cells = {(row["model"], row["head"]): row for row in report["turbohead"]}
    kinds = ("dense_int8", "dense_int4", "two_stage")
    rows = [
        (
            model,
            *(f"{cells[model, kind]['published']:.2f} / {cells[model, kind]['predicted']:.2f}" for kind in kinds),
        )
        for model in dict.fromkeys(row["model"] for row in report["turbohead"])
    ]
    return markdown(
        ("model, x over a float32 head: published / predicted", "dense int8", "dense int4", "two-stage"), rows
    )


def not_predicted(report: Report) -> str:
    """What is not predicted, and why."""
    return markdown(("not predicted", "because"), [(row["what"], row["why"]) for row in report["not_predicted"]])


def scaling(report: Report) -> str:
    """Heads at the ends of each series, beside the limits of the machine."""
    rows = []
    for name in HEAD_SERIES:
        points = report.get(name, {}).get("points", [])
        for value in sorted({point["value"] for point in points}):
            cells = {(p["head"], p["precision"]): p for p in points if p["value"] == value}
            times = (cells.get(key) for key in (("dense", "int8"), ("dense", "int4"), ("standard", "fp16")))
            native = cells["native", "fp16"]
            rows.append(
                (
                    f"{name} {value:,}",
                    *("-" if cell is None else f"{cell['ms_p50']:.2f}" for cell in times),
                    f"{native['ms_p50']:.2f}",
                    f"{native['predicted_ms']:.2f}",
                    f"{native['bytes_ms']:.2f}",
                    f"{native['operations_ms']:.2f}",
                )
            )
    titles = ("milliseconds", "dense int8", "dense int4", "standard operators", "native", "native, predicted")
    table = markdown((*titles, "its bytes / bandwidth", "its operations / peak"), rows)
    timed = [point for name in HEAD_SERIES for point in report.get(name, {}).get("points", [])]
    if not timed:
        return table
    found = ratio_errors([point["predicted_ms"] / point["ms_p50"] for point in timed])
    machine = report["batch"]["machine"]["cpu_model"]
    said = (
        f"Medians on {report['batch']['threads']} threads of {machine}. Of these {found['cases']:g} heads, dense ones "
        f"and standard operators too, predictions were off by {found['median']:.0%} in the median and by "
        f"{found['p90']:.0%} or less in 9 of 10."
    )
    return f"{said}\n\n{table}"


def scaling_clustering(report: Report) -> str:
    """Clusterings by size."""
    rows = [
        (
            f"{point['vocab_size']:,} x {point['hidden_size']:,}",
            f"{point['seconds']:.1f}",
            f"{point['operations_s']:.1f}",
            f"{point['peak_rss_bytes'] / 1e9:.2f}",
            f"{point['row_bytes'] / 1e9:.2f}",
            f"{point['peak_rss_bytes'] / point['row_bytes']:.2f}",
            f"{point['other_load']:.1f}",
        )
        for point in report["clustering"]["points"]
    ]
    titles = ("rows", "seconds", "operations / peak, s", "peak memory, GB", "float32 rows, GB", "peak / rows")
    titles += ("cores others used",)
    return markdown(titles, rows)


def _errors(found: dict[str, float]) -> tuple[str, ...]:
    return (f"{found['cases']:g}", *(f"{found[key]:.0%}" for key in ("median", "p90", "greatest")))


def _head(row: Report) -> str:
    if row["head"] == "dense":
        return f"dense {row['precision']}"
    words = [f"{row['head']}, {row['centroid_precision']} centroids"]
    if row["low_bit_rows"] is not None:
        words.append(f"{row['low_bit_rows']} rows first")
    return ", ".join(words)


def gpu_errors(report: Report) -> str:
    """How far predictions were off on a data centre GPU that nothing was fitted to."""
    names = {"dense": "dense heads, half precision", "two_stage": "two-stage heads, full-width logits"}
    rows = [(words, *_errors(report["errors"][kind])) for kind, words in names.items()]
    batches = (1, 8, 32)
    cells = {(row["head"], row["batch"]): row for row in report["rows"]}
    models = list(dict.fromkeys(row["head"] for row in report["rows"]))
    times = [
        (
            f"{model}, batch {batch}",
            *(f"{cells[model, batch][f'{kind}{part}_us']:.0f}" for kind in names for part in ("", "_predicted")),
        )
        for model in models
        for batch in batches
    ]
    titles = ("microseconds", "dense measured", "predicted", "two-stage measured", "predicted")
    return f"{report['gpu']}\n\n{markdown(_ERROR_HEAD, rows)}\n\n{markdown(titles, times)}"
