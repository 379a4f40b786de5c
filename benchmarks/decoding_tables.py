"""Tables of what options and parts of decoding cost and bring."""

from __future__ import annotations

from benchmarks.markdown import Report, markdown


def options(report: Report) -> str:
    """What decoding options cost."""
    models = report["models"]
    rows = []
    for number, row in enumerate(models[0]["options"]):
        figures = [model["options"][number] for model in models]
        cells = [(f"{f['tokens_per_second_p50']:.0f}", f"{f['ratio_to_greedy']:.2f}") for f in figures]
        rows.append((row["option"], *(cell for pair in cells for cell in pair)))
    for number, row in enumerate(models[0]["batches"]):
        figures = [model["batches"][number] for model in models]
        cells = [(f"{f['tokens_per_second']:.0f}", f"{f['ratio_to_one']:.2f}") for f in figures]
        rows.append((f"{row['rows']} texts side by side, all together", *(cell for pair in cells for cell in pair)))
    titles = ("option", *(cell for model in models for cell in (f"{model['model']}, tokens/s", "ratio")))
    return markdown(titles, rows)


def context_candidates(report: Report) -> str:
    """What context candidates bring."""
    rows = []
    for model in report["models"]:
        rows.append((model["model"], "none", f"{model['missed']:.4f}", "0", "-"))
        for more, missed in model["missed_with_more_clusters"].items():
            extra = int(more) * model["cluster_size"]
            rows.append((model["model"], f"none, {more} more clusters", f"{missed:.4f}", str(extra), "-"))
        for item in model["context_candidates"]:
            kind = f"{item['tokens_of_each']} of {item['positions_remembered']} positions"
            cells = (f"{item['missed']:.4f}", f"{item['rows_mean']:.0f}", f"{item['ms_p50']:.2f}")
            rows.append((model["model"], kind, *cells))
    return markdown(("model", "context candidates", "missed", "more rows", "ms to score them"), rows)


def monitor(report: Report) -> str:
    """What the recall monitor costs."""
    rows = []
    for model in report["models"]:
        low, high = model["overhead_p50_95_percent"]
        cells = (f"{model['check_ms_p50']:.2f}", f"{model['step_ms_p50']:.2f}", f"{model['overhead_p50']:.2%}")
        rows.append((model["model"], *cells, f"{low:.2%} to {high:.2%}", str(model["checks"])))
    every = f"overhead, every {report['every']}th step"
    return markdown(("model", "ms a check", "ms a step", every, "95 % interval", "checks"), rows)


def tracing(report: Report) -> str:
    """What counting and tracing cost a step."""
    rows = [("off", f"{report['step_off_us']:.1f}"), ("on", f"{report['step_on_us']:.1f}")]
    return markdown(("tracing", f"microseconds a step, {report['machine']['cpu_model']}"), rows)


def attention(report: Report) -> str:
    """Attention of the native library beside ONNX Runtime's."""
    names = ("native library", "ONNX Runtime")
    counts = [(model["model"], which, model["texts"][which]) for model in report["models"] for which in names]
    equal = "; ".join(f"{model}, {which}: {found['equal']} of {found['compared']}" for model, which, found in counts)
    rows = []
    for model in report["models"]:
        by_length: dict[int, dict[str, Report]] = {}
        for row in model["rows"]:
            by_length.setdefault(row["positions"], {})[row["attention"]] = row
        for length, pair in by_length.items():
            ours, theirs = (pair[which] for which in names)
            cells = [f"{row[key]:.1f}" for key in ("prompt_ms_p50", "step_ms_p50") for row in (ours, theirs)]
            rows.append((model["model"], str(length), *cells, f"{theirs['step_ms_p50'] / ours['step_ms_p50']:.2f}"))
    second = "with ONNX Runtime's"
    titles = ("model", "positions", "prompt, ms", second, "step, ms", second, "ratio of steps")
    where = f"{report['threads']} threads of {report['machine']['cpu_model']}, medians."
    texts = f"Drafted texts of {report['new_tokens']} tokens that are those without drafts, by attention: {equal}."
    return f"{texts}\n\n{where}\n\n{markdown(titles, rows)}"
