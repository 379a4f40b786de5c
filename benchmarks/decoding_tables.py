"""Tables of what options and parts of decoding cost and bring."""

from __future__ import annotations

from benchmarks.markdown import Report, markdown

OURS, THEIRS = "native library", "ONNX Runtime"
_SECOND = "with ONNX Runtime's"


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
    counts = [(model["model"], which, model["texts"][which]) for model in report["models"] for which in (OURS, THEIRS)]
    equal = "; ".join(f"{model}, {which}: {found['equal']} of {found['compared']}" for model, which, found in counts)
    where = f"{report['threads']} threads of {report['machine']['cpu_model']}, medians."
    texts = f"Drafted texts of {report['new_tokens']} tokens that are those without drafts, by attention: {equal}."
    return f"{texts}\n\n{where}\n\n{_prompts_and_steps(report, 'attention')}"


def body_products(report: Report) -> str:
    """Low-bit products of the native library beside ONNX Runtime's."""
    tokens = []
    for model in report["models"]:
        found, count = model["tokens"], model["tokens"]["positions"]
        tokens.append(f"{model['model']}: {found[OURS] / count:.3f} and {found[THEIRS] / count:.3f} of {count}")
    machine = f"{report['threads']} threads of {report['machine']['cpu_model']}, {report['kernels']}, medians."
    shapes, memory = [], []
    for model in report["models"]:
        for ours, theirs in zip(*(_of(model["shapes"], "products", which) for which in (OURS, THEIRS)), strict=True):
            name = f"{ours['K']} x {ours['N']}, {ours['bits']} bits, {ours['nodes']} of them"
            cells = [f"{row[key]:.0f}" for key in ("step_us_p50", "prompt_us_p50") for row in (ours, theirs)]
            shapes.append((model["model"], name, *cells))
        for which, found in model["memory"].items():
            sizes = [found[f"{kind}_bytes"] / 1e6 for kind in ("peak_rss", "anonymous", "mapped")]
            memory.append((model["model"], which, *(f"{size:.0f}" for size in sizes)))
    of_shapes = markdown(("model", "K x N", "step, us", _SECOND, "512 states, us", _SECOND), shapes)
    titles = ("model", "products of", "peak, MB", "with the weights, of no file", "of mapped files")
    texts = f"{machine} Next tokens of texts that are those over states that are not rounded, with ours and with ONNX "
    texts += f"Runtime's: {'; '.join(tokens)}."
    return "\n\n".join(
        [
            texts,
            _prompts_and_steps(report, "products"),
            f"The products of these prompts and steps alone, as ONNX Runtime's profiles have them:\n\n{of_shapes}",
            f"Memory of `flashhead-edge generate`, {report['new_tokens']} tokens:\n\n{markdown(titles, memory)}",
        ]
    )


def _prompts_and_steps(report: Report, what: str) -> str:
    """Times with the native library's operator beside those with ONNX Runtime's."""
    rows = []
    for model in report["models"]:
        for ours, theirs in zip(*(_of(model["rows"], what, which) for which in (OURS, THEIRS)), strict=True):
            cells = [f"{row[key]:.1f}" for key in ("prompt_ms_p50", "step_ms_p50") for row in (ours, theirs)]
            ratio = theirs["step_ms_p50"] / ours["step_ms_p50"]
            rows.append((model["model"], str(ours["positions"]), *cells, f"{ratio:.2f}"))
    titles = ("model", "positions", "prompt, ms", _SECOND, "step, ms", _SECOND, "ratio of steps")
    return markdown(titles, rows)


def _of(rows: list[Report], what: str, which: str) -> list[Report]:
    return [row for row in rows if row[what] == which]


def native_steps(report: Report) -> str:
    """What each part of the native library gains, beside what was expected."""
    rows = []
    for model in report["models"]:
        before = None
        for row in model["rows"]:
            step = row["step_ms_p50"]
            gain = "-" if before is None else f"{before / step:.2f}"
            expected = report["predicted"].get(row["with"], "-")
            rows.append((model["model"], f"+ {row['with']}", str(row["nodes"]), f"{step:.2f}", gain, expected))
            before = step
    heads = [
        f"{model['model']}: " + ", ".join(f"{ms:.2f} ms ({name})" for name, ms in model["head_ms_p50"].items())
        for model in report["models"]
    ]
    machine = f"{report['threads']} threads of {report['machine']['cpu_model']}, {report['kernels']}, medians."
    table = markdown(("model", "library does", "nodes", "step, ms", "ratio to the row above", "predicted"), rows)
    expected = report["predicted"]["int8 rows"]
    alone = f"The native head alone, cold, by its rows: {'; '.join(heads)}. Predicted of int8 rows: {expected}."
    return f"{machine}\n\n{table}\n\n{alone}"


def greedy_steps(report: Report) -> str:
    """Tokens of greedy steps beside those of scoring every candidate, and how many candidates were scored."""
    rows = []
    for model in report["models"]:
        for source in ("given texts", "own texts"):
            found = model[source]
            scored = (f"{found[key]:,.0f}" for key in ("scored_p50", "scored_mean", "scored_p99"))
            same = f"{found['same_tokens']:,} of {found['states']:,}"
            rows.append((model["model"], source, same, f"{found['candidates']:,}", *scored))
    titles = ("model", "states of", "same token", "candidates", "scored, median", "mean", "99th percentile")
    return markdown(titles, rows)
