"""How close the two-stage head's distribution is to the dense head's, and whether draws follow it.

The models of the demonstration at their default number of probes, on the held-out states of ``fidelity.py``: total
variation of the distribution that tokens are drawn from, errors of log-probabilities, perplexity of the texts, and a
likelihood-ratio test (G) of 100,000 draws at some states; the same test of drawing as the reference plugin does, a
cluster by the softmax of centroid scores and then a token inside. Writes ``results/distribution.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter

import numpy as np
import torch

from benchmarks.fidelity import CONTINUATION, held_out_states
from benchmarks.models import MODELS, RESULTS, bundle_of, model_file
from flashhead_edge.bundle import Bundle
from flashhead_edge.cli.progress import StageProgress
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.export.heads import read_head
from flashhead_edge.export.models import load_model
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.sources import resolve_source
from flashhead_edge.index.distribution import ENVELOPE, VocabularyDistribution, log_sum_exp
from flashhead_edge.lm_head import LmHead
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.progress import Progress
from flashhead_edge.runtimes import open_head
from flashhead_edge.token_scores import TokenScores, WholeVocabulary

TEMPERATURES = (0.5, 1.0, 1.5)
DRAWS = 100_000
TESTED_STATES = 4
BATCH = 32


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--limit", type=int, default=1500, help="states of each kind, evenly spread over all")
    arguments = parser.parse_args()
    with StageProgress() as progress:
        models = [measure(name, arguments.limit, progress) for name in arguments.models]
    report = {"machine": host_facts().as_dict(), "envelope": ENVELOPE, "draws": DRAWS, "models": models}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "distribution.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(models, indent=1))


def measure(name: str, limit: int, progress: Progress) -> dict[str, object]:
    """All figures of one model."""
    bundle = bundle_of(name, ExportOptions(body_precision="int4", max_positions=4096), label="int4-bundle")
    source = resolve_source(str(model_file(name)))
    head = read_head(source)
    states = held_out_states(*load_model(source), progress)
    written = states.domain == CONTINUATION
    report: dict[str, object] = {"model": name, "num_probes": bundle.manifest.index.num_probes}
    for kind, rows in (("teacher_forced", ~written), ("own_continuations", written)):
        chosen = np.flatnonzero(rows)
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(limit, len(chosen))).astype(np.int64)]
        hidden, following = states.hidden[chosen], states.next_token[chosen]
        report[kind] = {"positions": len(chosen)} | errors(bundle, head, hidden, following, progress)
    hidden = states.hidden[np.linspace(0, len(states.hidden) - 1, TESTED_STATES + 2).astype(np.int64)[1:-1]]
    report["draws"] = draw_tests(bundle, head, hidden)
    return report


def errors(
    bundle: Bundle, head: LmHead, hidden: np.ndarray, following: np.ndarray, progress: Progress
) -> dict[str, object]:
    """Errors of the distribution and of log-probabilities on some states."""
    runtime, distribution = open_head(bundle), distribution_of(bundle)
    variation: dict[float, list[np.ndarray]] = {temperature: [] for temperature in TEMPERATURES}
    scored: dict[float, list[np.ndarray]] = {temperature: [] for temperature in TEMPERATURES}
    surprise, chosen_error = [], []
    for start in range(0, len(hidden), BATCH):
        part = hidden[start : start + BATCH]
        output, dense = runtime.run(part), dense_logits(head, part)
        for temperature in TEMPERATURES:
            exact = dense / np.float64(temperature)
            exact = np.exp(exact - log_sum_exp(exact)[:, None])
            drawn = np.exp(distribution.drawn_log_probabilities(dense, output, temperature))
            variation[temperature].append(np.abs(exact - drawn).sum(axis=1) / 2)
            closed = log_sum_exp(distribution.closed_log_masses(output, temperature))
            known = log_sum_exp(output.candidate_logits / np.float64(temperature))
            scored[temperature].append(ENVELOPE * np.exp(closed - known))
        next_token = following[start : start + BATCH]
        own = dense[np.arange(len(part)), np.maximum(next_token, 0)]
        ours = distribution.log_partition_beside(output, dense, np.maximum(next_token, 0)) - own
        theirs = log_sum_exp(dense) - own
        surprise.append(np.where(next_token >= 0, [theirs, ours], np.nan))
        chosen_error.append(np.abs(distribution.log_partition(output) - log_sum_exp(dense)))
        progress("measuring the distribution", min(start + BATCH, len(hidden)), len(hidden))
    dense_surprise, surprise_here = np.concatenate(surprise, axis=1)
    perplexities = [float(np.exp(np.nanmean(values))) for values in (dense_surprise, surprise_here)]
    return {
        "total_variation_mean": {str(t): float(np.concatenate(values).mean()) for t, values in variation.items()},
        "clusters_scored_per_draw_bound_mean": {
            str(t): float(np.concatenate(values).mean()) for t, values in scored.items()
        },
        "perplexity_dense": perplexities[0],
        "perplexity_two_stage": perplexities[1],
        "perplexity_ratio": perplexities[1] / perplexities[0],
        "following_logprob_error_p99": float(np.nanquantile(np.abs(dense_surprise - surprise_here), 0.99)),
        "chosen_logprob_error_p99": float(np.quantile(np.concatenate(chosen_error), 0.99)),
    }


def draw_tests(bundle: Bundle, head: LmHead, hidden: np.ndarray) -> list[dict[str, float]]:
    """p-values of the test, for our draws and for the reference plugin's way of drawing."""
    runtime = open_head(bundle)
    rows, distribution = ExactRows.from_bundle(bundle), distribution_of(bundle)
    vocabulary = WholeVocabulary(rows, distribution)
    output, dense = runtime.run(hidden), dense_logits(head, hidden)
    tests = []
    for row in range(len(hidden)):
        random = np.random.default_rng(row)
        for temperature in TEMPERATURES:
            scores = TokenScores(output, hidden[row], row, vocabulary=vocabulary)
            draw = scores.draws(temperature)
            drawn = [draw(random) for _ in range(DRAWS)]
            claimed = distribution.drawn_log_probabilities(dense[row][None], output.row(row), temperature)[0]
            theirs = by_centroids(rows, output.cluster_scores[row], hidden[row], random, temperature)
            softmax = dense[row] / np.float64(temperature)
            softmax = np.exp(softmax - log_sum_exp(softmax[None]))
            tests.append(
                {
                    "temperature": temperature,
                    "p_value": g_test(drawn, np.exp(claimed)),
                    "reference_p_value": g_test(theirs, softmax),
                    "reference_total_variation": total_variation(theirs, softmax),
                }
            )
    return tests


def by_centroids(
    rows: ExactRows, scores: np.ndarray, state: np.ndarray, random: np.random.Generator, temperature: float
) -> list[int]:
    """Draw clusters by the softmax of their centroids' scores, then tokens by the softmax inside."""
    shares = np.exp((scores - scores.max()) / np.float64(temperature))
    clusters = random.choice(len(scores), size=DRAWS, p=shares / shares.sum())
    drawn: list[int] = []
    for cluster, count in Counter(clusters.tolist()).items():
        ids, logits = rows.cluster_logits(state, np.array([cluster]))
        inside = np.exp((logits - logits.max()) / np.float64(temperature))
        drawn.extend(random.choice(ids, size=count, p=inside / inside.sum()).tolist())
    return drawn


def g_test(drawn: list[int], probabilities: np.ndarray) -> float:
    """p-value of the likelihood-ratio test; tokens expected less than five times are counted together."""
    counts = np.bincount(drawn, minlength=len(probabilities)).astype(float)
    expected = probabilities / probabilities.sum() * len(drawn)
    rare = expected < 5
    counts, expected = (np.append(values[~rare], values[rare].sum()) for values in (counts, expected))
    some = counts > 0
    statistic = 2 * float((counts[some] * np.log(counts[some] / expected[some])).sum())
    half = torch.tensor([(len(counts) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def total_variation(drawn: list[int], probabilities: np.ndarray) -> float:
    """Distance of observed shares from probabilities; above zero by chance too."""
    return float(np.abs(np.bincount(drawn, minlength=len(probabilities)) / len(drawn) - probabilities).sum() / 2)


def distribution_of(bundle: Bundle) -> VocabularyDistribution:
    """The distribution of a bundle's head."""
    manifest = bundle.manifest
    return VocabularyDistribution(
        bundle.index(), logit_scale=manifest.logit_scale, logit_softcap=manifest.logit_softcap
    )


def dense_logits(head: LmHead, hidden: np.ndarray) -> np.ndarray:
    """Logits of all tokens, [B, V] float32."""
    logits = hidden @ head.rows.T
    if head.bias is not None:
        logits += head.bias
    return head.activate(logits)


if __name__ == "__main__":
    sys.exit(main())
