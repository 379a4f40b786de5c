"""Writes the tables of README and docs from ``results/*.json``, between ``<!-- table:NAME -->`` marks, and plots.

A table whose file is missing says "not measured". With ``--check`` nothing is written, and a stale table is an error.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import prediction_tables
from benchmarks.markdown import markdown
from flashhead_edge.files import write_text
from flashhead_edge.profiling.record import Profile, read_profile
from flashhead_edge.profiling.report.content import Content
from flashhead_edge.profiling.report.palette import LIGHT, fixed
from flashhead_edge.profiling.report.plots import PLOTS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/*.md", "benchmarks/README.md")
NOT_MEASURED = "not measured"
PLOT_WIDTH = 516


def main() -> int:
    """Render every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a table is stale")
    arguments = parser.parse_args()
    stale = []
    for pattern in PAGES:
        for page in sorted(ROOT.glob(pattern)):
            text = page.read_text(encoding="utf-8")
            rendered = render(text)
            if rendered != text:
                stale.append(str(page.relative_to(ROOT)))
                if not arguments.check:
                    page.write_text(rendered, encoding="utf-8")
    for path, image in plots().items():
        if not path.exists() or path.read_text(encoding="utf-8") != image:
            stale.append(str(path.relative_to(ROOT)))
            if not arguments.check:
                write_text(path, image)
    if stale:
        print(("stale: " if arguments.check else "wrote ") + ", ".join(stale))
    return int(bool(stale) and arguments.check)


def render(text: str) -> str:
    """The text with every table between marks made anew."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise SystemExit(f"There is no table {name!r}; known: {', '.join(TABLES)}")
        return f"<!-- table:{name} -->\n{TABLES[name]()}\n<!-- /table:{name} -->"

    return re.sub(r"<!-- table:(?P<name>\w+) -->\n.*?<!-- /table:(?P=name) -->", table, text, flags=re.DOTALL)


def plots() -> dict[Path, str]:
    """Plots of the profiles of a model, by the file that they belong in."""
    paths = [RESULTS / f"profile-gemma3-270m{suffix}.json" for suffix in ("", "-dense")]
    if not all(path.exists() for path in paths):
        return {}
    content = Content(tuple(map(read_profile, paths)))
    drawn = {name: PLOTS[name](content, PLOT_WIDTH, fixed(LIGHT)) for name in ("breakdown", "pareto")}
    return {
        ROOT / "docs" / "images" / f"profile-{name}.svg": canvas.render(background="card")
        for name, canvas in drawn.items()
        if canvas is not None
    }


def demo() -> str:
    """Speed and agreement of the heads over one body, a table for each model."""
    parts = []
    for model in ("gemma3-270m", "smollm2"):
        report = read(f"demo-{model}.json")
        if report is None:
            parts.append(f"{model}: {NOT_MEASURED}")
            continue
        machine = report["machine"]
        parts.append(
            f"{model}, {report['body_precision']} body, {report['threads']} threads of {machine['cpu_model']}, greedy; "
            f"medians over {report['rounds']} interleaved rounds of {report['prompts']} prompts, "
            f"{report['new_tokens']} tokens each; {report['reduction']:.1f} x fewer rows scored."
        )
        rows = [
            (
                row["head"],
                f"{row['tokens_per_second_p50']:.0f}",
                f"{row['ratio_to_dense_int8']:.2f}",
                f"{row['agreement']:.3f}",
                f"{row['head_bytes_per_token'] / 1e6:.0f}",
                f"{row['peak_rss_bytes'] / 1e6:.0f}",
            )
            for row in report["rows"]
        ]
        head = ("head", "tokens/s", "against dense int8", "agreement with fp32", "head MB a token", "peak memory, MB")
        parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def bench() -> str:
    """What ``flashhead-edge bench`` measured against llama.cpp, a table for each model."""
    parts = []
    for model in ("gemma3-270m", "smollm2"):
        rows = read(f"bench-{model}.json")
        if rows is None:
            parts.append(f"{model}: {NOT_MEASURED}")
            continue
        first = rows[0]
        parts.append(
            f"{model}, {first['threads']} threads of {first['cpu_model']}, batch {first['batch']}; "
            f"medians of {first['rounds']} rounds."
        )
        parts.append(
            markdown(
                ("head", "test", "tokens/s", "min to max", "ratio", "head, ms a step", "agreement", "peak memory, MB"),
                [
                    (
                        row["head"],
                        row["test"],
                        f"{row['tokens_per_second_p50']:.0f}",
                        f"{row['tokens_per_second_min']:.0f} to {row['tokens_per_second_max']:.0f}",
                        f"{row['ratio_p50']:.2f}",
                        "-" if row["head_ms_p50"] is None else f"{row['head_ms_p50']:.2f}",
                        "-" if row["agreement"] is None else f"{row['agreement']:.3f}",
                        f"{row['peak_rss_bytes'] / 1e6:.0f}",
                    )
                    for row in rows
                ],
            )
        )
    return "\n\n".join(parts)


def fidelity() -> str:
    """Agreement with the dense fp32 head on held-out states."""
    report = read("fidelity.json")
    if report is None:
        return NOT_MEASURED
    rows = [
        (
            model["model"],
            f"{model['reduction']:.2f}",
            kind.replace("_", " "),
            str(model[kind]["positions"]),
            *(
                f"{model[kind][name]:.4f}"
                for name in ("containment", "agreement", "dense_int8_agreement", "dense_int4_agreement")
            ),
        )
        for model in report["models"]
        for kind in ("teacher_forced", "own_continuations")
    ]
    head = ("model", "reduction", "states", "positions", "containment", "two-stage", "dense int8", "dense int4")
    return markdown(head, rows)


def clustering() -> str:
    """Time, memory and containment of our clustering against spherical k-means."""
    report = read("clustering.json")
    if report is None:
        return NOT_MEASURED
    rows = []
    for shape in report["shapes"]:
        for method in shape["methods"]:
            iterations, shares = method["iterations"], method["containment"] or {}
            rows.append(
                (
                    f"{shape['vocab_size']:,} x {shape['hidden_size']:,}",
                    method["method"] + (f", {iterations} iterations" if iterations else ""),
                    f"{method['num_clusters']:,} of {method['cluster_size']}",
                    f"{method['seconds']:.1f}",
                    f"{method['peak_over_rows']:.2f}",
                    *(f"{shares[probes]:.3f}" if probes in shares else NOT_MEASURED for probes in ("256", "512")),
                )
            )
    head = ("rows", "method", "clusters", "seconds", "peak memory / rows", "containment@256", "containment@512")
    data = [f"{shape['vocab_size']:,} x {shape['hidden_size']:,} are {shape['data']}" for shape in report["shapes"]]
    return (
        f"{markdown(head, rows)}\n\n{'; '.join(data)}. {report['threads']} threads of {report['machine']['cpu_model']}."
    )


def distribution() -> str:
    """The distribution over the whole vocabulary, against the dense head's."""
    report = read("distribution.json")
    if report is None:
        return NOT_MEASURED
    rows = [
        (
            model["model"],
            kind.replace("_", " "),
            *(f"{model[kind]['total_variation_mean'][temperature]:.4f}" for temperature in ("0.5", "1.0", "1.5")),
            f"{model[kind]['perplexity_ratio']:.4f}",
            f"{model[kind]['following_logprob_error_p99']:.3f}",
            f"{model[kind]['clusters_scored_per_draw_bound_mean']['1.0']:.2f}",
        )
        for model in report["models"]
        for kind in ("teacher_forced", "own_continuations")
    ]
    variation = [f"total variation, T = {temperature}" for temperature in ("0.5", "1", "1.5")]
    head = ("model", "states", *variation, "perplexity ratio", "logprob error, p99", "clusters a draw, T = 1")
    tests = [test for model in report["models"] for test in model["draws"]]
    lowest, highest = (
        pick(test[key] for test in tests) for pick, key in ((min, "p_value"), (max, "reference_p_value"))
    )
    return (
        f"{markdown(head, rows)}\n\nLikelihood-ratio tests of {report['draws']:,} draws at {len(tests)} states and "
        f"temperatures: p-values of ours are {lowest:.3f} or more; of drawing a cluster by the softmax of centroid "
        f"scores and then inside, {highest:.0e} or less."
    )


def head_batches() -> str:
    """Milliseconds of heads by batch."""
    models = [read(f"native-head-{name}.json") for name in ("gemma3-270m", "smollm2")]
    parts = []
    for report in models:
        if report is None:
            continue
        names = ("dense int8", "dense int4", "standard operators", "native")
        times = {(row["batch"], row["head"]): row["ms_p50"] for row in report["heads"]}
        rows = [
            (
                str(batch),
                *(f"{times[batch, name]:.2f}" for name in names),
                f"{times[batch, names[0]] / times[batch, 'native']:.1f}",
            )
            for batch in sorted({batch for batch, _ in times})
        ]
        head = (
            "batch",
            "dense int8",
            "dense int4",
            "two-stage, standard operators",
            "two-stage, native",
            "int8 / native",
        )
        shape = f"{report['vocab_size']:,} x {report['hidden_size']}"
        machine = f"{report['threads']} threads of {report['machine']['cpu_model']}, kernels {report['kernels']}"
        parts.append(f"{shape}, milliseconds of the head, {machine}, medians.\n\n{markdown(head, rows)}")
    return "\n\n".join(parts) or NOT_MEASURED


def decoding_options() -> str:
    """What decoding options cost."""
    report = read("decoding-options.json")
    if report is None:
        return NOT_MEASURED
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
    head = ("option", *(cell for model in models for cell in (f"{model['model']}, tokens/s", "ratio")))
    return markdown(head, rows)


def context_candidates() -> str:
    """What context candidates bring."""
    report = read("context-candidates.json")
    if report is None:
        return NOT_MEASURED
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


def vllm_speed() -> str:
    """Decoding speed of vLLM on the CPU with both heads, a table for each model."""
    report = read("vllm-speed.json")
    if report is None:
        return NOT_MEASURED
    parts = []
    for name, model in report["models"].items():
        parts.append(
            f"{name}: vLLM {model['vllm']}, bfloat16, {report['machine']['cpu_model']}, {model['clock']}, "
            f"{json.dumps(model['sampling'])}; medians of rounds in turn."
        )
        head = (
            "head",
            "batch",
            "rounds",
            "tokens/s",
            "against dense",
            "min to max",
            "step, ms",
            "head, ms",
            "sampler, ms",
        )
        rows = [
            (
                row["head"],
                str(row["batch"]),
                str(row["rounds"]),
                f"{row['tokens_per_second_p50']:.1f}",
                f"{row['ratio_p50']:.2f}",
                f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}",
                *(f"{row[f'{part}_ms_p50']:.1f}" for part in ("step", "head", "sampler")),
            )
            for row in model["rows"]
        ]
        parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def read(name: str) -> dict[str, Any] | None:
    """A result, or None where there is none."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def kernels() -> str:
    """Registers and shared memory of the GPU kernels, by target."""
    report = read("kernels.json")
    if report is None:
        return NOT_MEASURED
    cells = {
        (item["build"], item["target"]): f"{item['registers']}, {item['shared_bytes']}" for item in report["kernels"]
    }
    targets = list(dict.fromkeys(target for _, target in cells))
    lines = [f"| kernel | {' | '.join(targets)} |", "| --- " * (len(targets) + 1) + "|"]
    lines += [
        f"| {build} | {' | '.join(cells[build, target] for target in targets)} |"
        for build in dict.fromkeys(build for build, _ in cells)
    ]
    return "\n".join(lines)


def rendered(table: Callable[[dict[str, Any]], str], name: str) -> Callable[[], str]:
    """A table of one result, or a word where there is none."""

    def text() -> str:
        report = read(name)
        return NOT_MEASURED if report is None else table(report)

    return text


def runtimes(report: dict[str, Any]) -> str:
    """Speed and memory of whole models by runtime."""
    rows = [
        (row["model"], row["runtime"], f"{row['tokens_per_second_p50']:.0f}", f"{row['peak_rss_bytes'] / 1e6:.0f}")
        for row in report["rows"]
    ]
    where = f"{report['threads']} threads of {report['machine']['cpu_model']}, {report['rounds']} rounds in turn."
    return f"{where}\n\n{markdown(('model', 'runtime', 'tokens/s', 'peak memory, MB'), rows)}"


def monitor(report: dict[str, Any]) -> str:
    """What the recall monitor costs."""
    rows = []
    for model in report["models"]:
        low, high = model["overhead_p50_95_percent"]
        cells = (f"{model['check_ms_p50']:.2f}", f"{model['step_ms_p50']:.2f}", f"{model['overhead_p50']:.2%}")
        rows.append((model["model"], *cells, f"{low:.2%} to {high:.2%}", str(model["checks"])))
    head = ("model", "ms a check", "ms a step", f"overhead, every {report['every']}th step", "95 % interval", "checks")
    return markdown(head, rows)


def attention(report: dict[str, Any]) -> str:
    """Attention of the native library beside ONNX Runtime's."""
    names = ("native library", "ONNX Runtime")
    counts = [(model["model"], which, model["texts"][which]) for model in report["models"] for which in names]
    equal = "; ".join(f"{model}, {which}: {found['equal']} of {found['compared']}" for model, which, found in counts)
    rows = []
    for model in report["models"]:
        by_length: dict[int, dict[str, dict[str, float]]] = {}
        for row in model["rows"]:
            by_length.setdefault(row["positions"], {})[row["attention"]] = row
        for length, pair in by_length.items():
            ours, theirs = pair["native library"], pair["ONNX Runtime"]
            cells = [f"{row[key]:.1f}" for key in ("prompt_ms_p50", "step_ms_p50") for row in (ours, theirs)]
            rows.append((model["model"], str(length), *cells, f"{theirs['step_ms_p50'] / ours['step_ms_p50']:.2f}"))
    titles = (
        "model",
        "positions",
        "prompt, ms",
        "with ONNX Runtime's",
        "step, ms",
        "with ONNX Runtime's",
        "ratio of steps",
    )
    where = f"{report['threads']} threads of {report['machine']['cpu_model']}, medians."
    texts = f"Drafted texts of {report['new_tokens']} tokens that are those without drafts, by attention: {equal}."
    return f"{texts}\n\n{where}\n\n{markdown(titles, rows)}"


def profiles() -> str:
    """The stages of a step of both models and heads, as ``flashhead-edge profile`` measured them."""
    parts = []
    for model in ("gemma3-270m", "smollm2"):
        paths = [RESULTS / f"profile-{model}{suffix}.json" for suffix in ("", "-dense")]
        if not all(path.exists() for path in paths):
            parts.append(f"{model}: {NOT_MEASURED}")
            continue
        taken = [read_profile(path) for path in paths]
        first = taken[0]
        parts.append(
            f"{model}, {first.threads} threads of {first.machine.processor}, {first.positions} positions; memory "
            f"{first.machine.bandwidth_gb_s:.1f} GB/s ({first.machine.bandwidth_source}); other programs kept "
            f"{max(profile.other_load or 0 for profile in taken):.2f} cores busy."
        )
        titles = ("head", "stage", "ms", "10th to 90th percentile", "share", "MB read", "GB/s", "bound")
        parts.append(markdown(titles, [row for profile in taken for row in stage_rows(profile)]))
    shown = {"profile-breakdown.svg": "Time of a decode step", "profile-pareto.svg": "Agreement against time"}
    parts += [f"![{shown[path.name]}](images/{path.name})" for path in plots()]
    return "\n\n".join(parts)


def stage_rows(profile: Profile) -> list[tuple[str, ...]]:
    """Cells of a profile's stages and of its whole step."""
    total = sum(stage.ms for stage in profile.stages)
    rows = []
    for stage in profile.stages:
        spread = "-" if stage.ms_p10 is None else f"{stage.ms_p10:.3f} to {stage.ms_p90:.3f}"
        read_mb = "-" if stage.bytes is None else f"{stage.bytes / 1e6:.1f}"
        reached = "-" if stage.bandwidth_gb_s is None else f"{stage.bandwidth_gb_s:.1f}"
        share = f"{100 * stage.ms / total:.1f} %"
        rows.append(
            (profile.model.head, stage.name, f"{stage.ms:.3f}", spread, share, read_mb, reached, stage.bound or "-")
        )
    over = profile.overhead
    cost = "-" if over is None else f"profiled: {over.profiled_ms:.2f}"
    rows.append((profile.model.head, "step", f"{profile.step_ms:.3f}", cost, "-", "-", "-", "-"))
    return rows


def tracing() -> str:
    """What counting and tracing cost a step."""
    report = read("tracing.json")
    if report is None:
        return NOT_MEASURED
    rows = [("off", f"{report['step_off_us']:.1f}"), ("on", f"{report['step_on_us']:.1f}")]
    return markdown(("tracing", f"microseconds a step, {report['machine']['cpu_model']}"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "kernels": kernels,
    "runtimes": rendered(runtimes, "runtimes.json"),
    "monitor": rendered(monitor, "monitor.json"),
    "attention": rendered(attention, "attention.json"),
    "bench": bench,
    "profiles": profiles,
    "tracing": tracing,
    "demo": demo,
    "clustering": clustering,
    "fidelity": fidelity,
    "distribution": distribution,
    "head_batches": head_batches,
    "decoding_options": decoding_options,
    "context_candidates": context_candidates,
    "prediction_errors": rendered(prediction_tables.errors, "prediction.json"),
    "prediction_heads": rendered(prediction_tables.heads, "prediction.json"),
    "prediction_coefficients": rendered(prediction_tables.coefficients, "prediction.json"),
    "published_errors": rendered(prediction_tables.published_errors, "published-speed.json"),
    "published_speedups": rendered(prediction_tables.published_speedups, "published-speed.json"),
    "published_calls": rendered(prediction_tables.published_calls, "published-speed.json"),
    "published_ratios": rendered(prediction_tables.published_ratios, "published-speed.json"),
    "not_predicted": rendered(prediction_tables.not_predicted, "published-speed.json"),
    "scaling": rendered(prediction_tables.scaling, "scaling.json"),
    "vllm_speed": vllm_speed,
}


if __name__ == "__main__":
    sys.exit(main())
