"""What context candidates bring and cost: agreement, rows and time a step, against the same rows in more clusters.

Texts that the dense float32 head writes greedily after the prompts of ``texts/prompts.txt``, position by position.
Writes ``results/context-candidates.json``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import deque

import numpy as np

from benchmarks.fidelity import TEXTS
from benchmarks.models import MODELS, RESULTS, bundle_of
from flashhead_edge.bundle import Bundle
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.tokenizer import Tokenizer

NEW_TOKENS = 96
PROMPTS = 32
#: Positions remembered and tokens of each.
SETTINGS = ((16, 5), (64, 1), (64, 5), (64, 20), (191, 5), (191, 20))
MORE_CLUSTERS = (4, 8, 16)


def main() -> None:
    """Measure every model."""
    models = [measure(name) for name in MODELS]
    report = {"machine": host_facts().as_dict(), "new_tokens": NEW_TOKENS, "models": models}
    (RESULTS / "context-candidates.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(models, indent=1))


def measure(name: str) -> dict[str, object]:
    """All figures of one model."""
    bundle = bundle_of(name, ExportOptions(body_precision="int4", max_positions=4096), label="int4-bundle")
    texts = written_texts(bundle)
    rows, facts = ExactRows.from_bundle(bundle), bundle.manifest.index
    index = rows.index
    cluster = index.slot_of_token // index.cluster_size
    selection = index.centroid_bias + index.selection_offset
    ranks = []
    for tokens, hidden, _ in texts:
        scores = hidden @ index.centroids.T + selection
        own = cluster[tokens]
        reached = scores[np.arange(len(tokens)), np.minimum(own, len(selection) - 1)]
        ranks.append(np.where(own < len(selection), (scores > reached[:, None]).sum(axis=1), -1))
    positions = sum(map(len, ranks))

    def missed(probes: int) -> float:
        return sum(int((rank >= probes).sum()) for rank in ranks) / positions

    settings = []
    for window, count in SETTINGS:
        left, extra, seconds = 0, [], []
        for (tokens, hidden, likely), rank in zip(texts, ranks, strict=True):
            recent: deque[np.ndarray] = deque(maxlen=window)
            for place, token in enumerate(tokens):
                known = np.unique(np.concatenate(recent)) if recent else np.empty(0, np.int64)
                left += int(rank[place] >= facts.num_probes and token not in known)
                extra.append(len(known))
                start = time.perf_counter()
                rows.token_logits(hidden[place], known)
                seconds.append(time.perf_counter() - start)
                recent.append(likely[place, :count])
        settings.append(
            {
                "positions_remembered": window,
                "tokens_of_each": count,
                "missed": left / positions,
                "rows_mean": statistics.mean(extra),
                "ms_p50": statistics.median(seconds) * 1e3,
            }
        )
    return {
        "model": name,
        "positions": positions,
        "missed": missed(facts.num_probes),
        "missed_with_more_clusters": {str(more): missed(facts.num_probes + more) for more in MORE_CLUSTERS},
        "cluster_size": facts.cluster_size,
        "context_candidates": settings,
    }


def written_texts(bundle: Bundle) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For every prompt: tokens of the dense head [S], states [S, H], and the 20 likeliest tokens [S, 20]."""
    tokenizer = Tokenizer(bundle.path)
    outputs = ("candidate_ids", "candidate_logits", "hidden_states")
    decoder = Decoder(choose_graph(bundle, "dense"), bundle.manifest.body, outputs=outputs)
    lines = (TEXTS / "prompts.txt").read_text(encoding="utf-8").splitlines()
    texts = []
    for line in [line for line in lines if line.strip()][:PROMPTS]:
        fed = np.array([tokenizer.encode(line)])
        decoder.reset(positions=fed.shape[1] + NEW_TOKENS)
        found = []
        for _ in range(NEW_TOKENS):
            ids, logits, hidden = decoder.run(fed)
            best = np.argpartition(-logits[0], 20)[:20]
            best = ids[0][best[np.argsort(-logits[0][best], kind="stable")]]
            found.append((best[0], hidden[0], best))
            if best[0] in bundle.manifest.eos_token_ids:
                break
            fed = best[None, :1]
        tokens, hidden, likely = zip(*found, strict=True)
        texts.append((np.array(tokens), np.array(hidden), np.array(likely)))
    return texts


if __name__ == "__main__":
    sys.exit(main())
