"""Tables of vLLM with the two-stage head."""

from __future__ import annotations

import json

from benchmarks.markdown import Report, markdown


def speed(report: Report) -> str:
    """Decoding speed of vLLM on the CPU with both heads, a table for each model."""
    titles = (
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
    parts = []
    for name, model in report["models"].items():
        parts.append(
            f"{name}: vLLM {model['vllm']}, bfloat16, {report['machine']['cpu_model']}, {model['clock']}, "
            f"{json.dumps(model['sampling'])}; medians of rounds in turn."
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
        parts.append(markdown(titles, rows))
    return "\n\n".join(parts)
