"""How often the two-stage head, and dense int8 and int4 heads, choose the dense fp32 head's token.

The models of the demonstration, calibrated by the default; states of the texts in ``texts/``, which had no part in
calibration, teacher-forced, and of the model's own greedy continuations of ``texts/prompts.txt``. All heads run in
ONNX Runtime on the same states. Writes ``results/fidelity.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.models import MODELS, RESULTS, bundle_of, model_file
from flashhead_edge.cli.progress import StageProgress
from flashhead_edge.export.dense_head import write_dense_head
from flashhead_edge.export.heads import read_head
from flashhead_edge.export.models import load_model
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.sources import resolve_source
from flashhead_edge.export.states import HiddenStates, Passage, continued_states, teacher_forced_states
from flashhead_edge.index.quality import measure_positions
from flashhead_edge.lm_head import LmHead
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.progress import Progress
from flashhead_edge.runtimes import open_head

TEXTS = Path(__file__).resolve().parent / "texts"
CONTINUATION = "continuation"


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--limit", type=int, default=4000, help="states of each kind, evenly spread over all")
    arguments = parser.parse_args()
    with StageProgress() as progress:
        models = [measure(name, arguments.limit, progress) for name in arguments.models]
    report = {"machine": host_facts().as_dict(), "models": models}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fidelity.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for model in models:
        for kind in ("teacher_forced", "own_continuations"):
            print(model["model"], f"{model['reduction']:.2f}", kind, json.dumps(model[kind]))


def measure(name: str, limit: int, progress: Progress) -> dict[str, object]:
    """All figures of one model."""
    bundle = bundle_of(name, ExportOptions(body_precision="int4", max_positions=4096), label="int4-bundle")
    source = resolve_source(str(model_file(name)))
    head = read_head(source)
    states = held_out_states(*load_model(source), progress)
    written = states.domain == CONTINUATION
    kinds = [np.flatnonzero(~written), np.flatnonzero(written)]
    kept = [rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(np.int64)] for rows in kinds]
    states = states.select(np.concatenate(kept))
    scores = measure_positions(
        head, open_head(bundle), bundle.index(), states.hidden, states.next_token, progress=progress
    )
    right = {"agreement": scores.tokens == scores.dense_tokens, "containment": scores.contained}
    for precision in ("int8", "int4"):
        tokens = dense_tokens(head, precision, states.hidden, progress)
        right[f"dense_{precision}_agreement"] = tokens == scores.dense_tokens
    own = states.domain == CONTINUATION
    facts = bundle.manifest.index
    return {
        "model": name,
        "vocab_size": head.vocab_size,
        "reduction": facts.reduction,
        "num_clusters": facts.num_clusters,
        "cluster_size": facts.cluster_size,
        "num_probes": facts.num_probes,
        "always_scored": facts.always_scored,
        "centroid_precision": facts.centroid_precision,
        "cluster_precision": facts.cluster_precision,
        "calibration": facts.calibration.source,
        "calibration_states": facts.calibration.states,
        "teacher_forced": shares(right, ~own) | divergences(scores, ~own),
        "own_continuations": shares(right, own) | divergences(scores, own),
        "per_domain": {str(name): shares(right, states.domain == name) for name in np.unique(states.domain)},
    }


def shares(right: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, float | int]:
    """Shares of the chosen positions."""
    return {"positions": int(rows.sum())} | {name: float(values[rows].mean()) for name, values in right.items()}


def divergences(scores: object, rows: np.ndarray) -> dict[str, float]:
    """Means over the chosen positions."""
    return {
        "regret_mean": float(scores.regret[rows].mean()),
        "kl_mean": float(scores.kl[rows].mean()),
        "total_variation_mean": float(scores.total_variation[rows].mean()),
    }


def held_out_states(model: object, tokenizer: object, progress: Progress) -> HiddenStates:
    """States of texts and prompts that had no part in calibration."""
    passages = [
        Passage(file.stem, text.strip())
        for file in sorted(TEXTS.glob("*.txt"))
        if file.stem != "prompts"
        for text in file.read_text(encoding="utf-8").split("\n---\n")
    ]
    lines = (TEXTS / "prompts.txt").read_text(encoding="utf-8").splitlines()
    prompts = [Passage(CONTINUATION, line) for line in lines if line.strip()]
    read = teacher_forced_states(model, tokenizer, passages, progress=progress)
    written = continued_states(
        model, tokenizer, prompts, beginning_tokens=10_000, new_tokens=64, batch=16, progress=progress
    )
    return HiddenStates.concatenate([read, written])


def dense_tokens(head: LmHead, precision: str, hidden: np.ndarray, progress: Progress) -> np.ndarray:
    """Tokens that a dense low-bit head chooses."""
    with tempfile.TemporaryDirectory() as folder:
        graph = write_dense_head(head, precision, Path(folder), "dense.onnx")
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        tokens = []
        for start in range(0, len(hidden), 64):
            batch = hidden[start : start + 64]
            tokens.append(session.run(["token_ids"], {"hidden_states": batch})[0])
            progress(f"running the dense {precision} head", min(start + 64, len(hidden)), len(hidden))
    return np.concatenate(tokens)


if __name__ == "__main__":
    sys.exit(main())
