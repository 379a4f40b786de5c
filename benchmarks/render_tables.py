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

from benchmarks import (
    decoding_tables,
    fidelity_tables,
    head_tables,
    prediction_tables,
    profile_tables,
    speed_tables,
    vllm_tables,
)
from benchmarks.markdown import NOT_MEASURED, Report
from benchmarks.models import MODELS, RESULTS
from flashhead_edge.files import write_text
from flashhead_edge.profiling.record import Profile, read_profile

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/*.md", "benchmarks/README.md")
PLOTTED_MODEL = "gemma3-270m"


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
    return {ROOT / "docs" / "images" / f"profile-{name}.svg": image for name, image in drawings().items()}


def drawings() -> dict[str, str]:
    """The same plots by name."""
    profiles = read_profiles(PLOTTED_MODEL)
    return {} if profiles is None else profile_tables.drawings(profiles)


def read(name: str) -> Any:
    """A result, or None where there is none."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_profiles(model: str) -> list[Profile] | None:
    """Profiles of the two-stage and the dense head of a model, or None where one is missing."""
    paths = [RESULTS / f"profile-{model}{suffix}.json" for suffix in ("", "-dense")]
    return [read_profile(path) for path in paths] if all(path.exists() for path in paths) else None


def rendered(table: Callable[[Report], str], name: str) -> Callable[[], str]:
    """A table of one result, or a word where there is none."""

    def text() -> str:
        report = read(name)
        return NOT_MEASURED if report is None else table(report)

    return text


def by_model(table: Callable[[str, Any], str], result: Callable[[str], Any]) -> Callable[[], str]:
    """A table for each model, of the result that there is of it, or a word where there is none."""

    def text() -> str:
        reports = {model: result(model) for model in MODELS}
        return "\n\n".join(
            f"{model}: {NOT_MEASURED}" if report is None else table(model, report) for model, report in reports.items()
        )

    return text


def head_batches() -> str:
    """Milliseconds of heads by batch, a table for each model that has a result."""
    reports = [read(f"native-head-{model}.json") for model in MODELS]
    return "\n\n".join(head_tables.batches(report) for report in reports if report is not None) or NOT_MEASURED


def profiles() -> str:
    """The stages of a step of both models and heads, and the plots."""
    stages = by_model(profile_tables.stages, read_profiles)()
    links = [f"![{profile_tables.SHOWN[name]}](images/profile-{name}.svg)" for name in drawings()]
    return "\n\n".join([stages, *links])


TABLES: dict[str, Callable[[], str]] = {
    "gpu_head": rendered(head_tables.on_gpu, "gpu-head.json"),
    "kernels": rendered(head_tables.kernels, "kernels.json"),
    "bench_gpu": by_model(speed_tables.bench_gpu, lambda model: read(f"bench-cuda-{model}.json")),
    "cuda_text": rendered(speed_tables.cuda_text, "cuda-text.json"),
    "starts": rendered(speed_tables.starts, "starts.json"),
    "runtimes": rendered(speed_tables.runtimes, "runtimes.json"),
    "monitor": rendered(decoding_tables.monitor, "monitor.json"),
    "attention": rendered(decoding_tables.attention, "attention.json"),
    "body_products": rendered(decoding_tables.body_products, "body-products.json"),
    "native_steps": rendered(decoding_tables.native_steps, "native-steps.json"),
    "greedy_steps": rendered(decoding_tables.greedy_steps, "greedy-steps.json"),
    "bench": by_model(speed_tables.bench, lambda model: read(f"bench-{model}.json")),
    "profiles": profiles,
    "tracing": rendered(decoding_tables.tracing, "tracing.json"),
    "demo": by_model(speed_tables.demo, lambda model: read(f"demo-{model}.json")),
    "clustering": rendered(head_tables.clustering, "clustering.json"),
    "fidelity": rendered(fidelity_tables.agreement, "fidelity.json"),
    "distribution": rendered(fidelity_tables.distribution, "distribution.json"),
    "head_batches": head_batches,
    "decoding_options": rendered(decoding_tables.options, "decoding-options.json"),
    "context_candidates": rendered(decoding_tables.context_candidates, "context-candidates.json"),
    "prediction_errors": rendered(prediction_tables.errors, "prediction.json"),
    "prediction_heads": rendered(prediction_tables.heads, "prediction.json"),
    "prediction_steps": rendered(prediction_tables.steps, "prediction.json"),
    "prediction_coefficients": rendered(prediction_tables.coefficients, "prediction.json"),
    "gpu_errors": rendered(prediction_tables.gpu_errors, "gpu-prediction.json"),
    "published_errors": rendered(prediction_tables.published_errors, "published-speed.json"),
    "published_speedups": rendered(prediction_tables.published_speedups, "published-speed.json"),
    "published_calls": rendered(prediction_tables.published_calls, "published-speed.json"),
    "published_ratios": rendered(prediction_tables.published_ratios, "published-speed.json"),
    "not_predicted": rendered(prediction_tables.not_predicted, "published-speed.json"),
    "scaling": rendered(prediction_tables.scaling, "scaling.json"),
    "scaling_clustering": rendered(prediction_tables.scaling_clustering, "scaling.json"),
    "vllm_agreement": rendered(vllm_tables.agreement, "vllm-agreement.json"),
    "vllm_speed": rendered(vllm_tables.speed, "vllm-speed.json"),
    "vllm_speed_gpu": rendered(vllm_tables.speed, "vllm-speed-gpu.json"),
}


if __name__ == "__main__":
    sys.exit(main())
