"""Tables of vLLM with the two-stage head."""

from __future__ import annotations

import json

from benchmarks.markdown import Report, markdown


def speed(report: Report) -> str:
    """Decoding speed of vLLM with both heads, a table for each model."""
    parts = []
    device = report["machine"].get("gpu", report["machine"]["cpu_model"])
    digits = 2 if "gpu" in report["machine"] else 1
    for name, model in report["models"].items():
        spans = [part for part in ("step", "head", "sampler") if f"{part}_ms_p50" in model["rows"][0]]
        titles = ("head", "batch", "rounds", "tokens/s", "against dense", "min to max", *(f"{p}, ms" for p in spans))
        parts.append(
            f"{name}: vLLM {model['vllm']}, bfloat16, {device}, {model['clock']}, "
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
                *(f"{row[f'{part}_ms_p50']:.{digits}f}" for part in spans),
            )
            for row in model["rows"]
        ]
        parts.append(markdown(titles, rows))
    return "\n\n".join(parts)


def agreement(report: Report) -> str:
    """How near the plugin's logits are to dense vLLM's, a row for each model and kind of text."""
    rows, notes = [], []
    for model in report["models"]:
        for kind in ("greedy", "drawn", "all_opened"):
            found = model[kind]
            clusters = model["num_clusters"] if kind == "all_opened" else model["num_probes"]
            cells = [f"{found[f'total_variation_{key}']:.4f}" for key in ("mean", "p50", "p99")]
            text = {"greedy": "greedy", "drawn": "drawn at temperature 1", "all_opened": "greedy"}[kind]
            count = f"{clusters} of {model['num_clusters']}"
            rows.append((model["model"], text, count, str(found["positions"]), f"{found['agreement']:.4f}", *cells))
        texts, drafts = model["greedy_texts"], model["accepted_drafts"]
        notes.append(
            f"{model['model']}, vLLM {model['versions']['vllm']}: "
            f"{texts['equal']} of {texts['texts']} whole greedy texts of "
            f"{report['new_tokens']} tokens are dense vLLM's."
        )
        if drafts is not None:
            notes[-1] += (
                f" Drafting for itself, the two-stage head accepts {drafts['two_stage']:.1%} of its drafts, and the "
                f"dense head {drafts['dense']:.1%}."
            )
    titles = ("model", "text", "clusters opened", "positions", "same token", "total variation, mean", "median", "99 %")
    return "\n\n".join([markdown(titles, rows), *notes])
