"""Greedy steps of the native head, which estimate before they score, against scoring every candidate.

On states of texts that were given and of texts that the models write, none of which was used for the bundles: whether
the token is the same, and of how many candidates a greedy step computed the exact logit. Writes
``results/greedy-steps.json``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.native_head import TEXTS
from benchmarks.variants import int4_bundle, measure_models
from flashhead_edge import Bundle, native
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from flashhead_edge.tokenizer import Tokenizer

GIVEN_TOKENS, PROMPT, OWN_TOKENS = 400, 32, 400
AT_ONCE = 16


def main() -> None:
    """Compare every model."""
    measure_models(__doc__, "greedy-steps.json", {"kernels": native.kernels()}, compare)


def compare(name: str) -> dict[str, Any]:
    """Both ways on the states of one model."""
    bundle = int4_bundle(name)
    head = OnnxRuntimeHead.from_bundle(bundle)
    return {"model": name} | {source: compared(head, states) for source, states in states_of(bundle).items()}


def states_of(bundle: Bundle) -> dict[str, np.ndarray]:
    """Final hidden states, [N, H] float32, of the texts and of what the model makes of their beginnings."""
    body = bundle.manifest.body
    assert body is not None
    decoder = Decoder(choose_graph(bundle, "decode"), body, outputs=("token_ids", "hidden_states"))
    tokenizer = Tokenizer(bundle.path)
    given, own = [], []
    for text in sorted(TEXTS.glob("*.txt")):
        ids = np.array([tokenizer.encode(text.read_text(encoding="utf-8"))[:GIVEN_TOKENS]])
        decoder.reset()
        given.append(decoder.run(ids, scored=ids.shape[1])[1][4:])
        decoder.reset()
        token, _ = decoder.run(ids[:, :PROMPT])
        for _ in range(OWN_TOKENS):
            token, states = decoder.run(token[:, None])
            own.append(states)
    return {"given texts": np.concatenate(given), "own texts": np.concatenate(own)}


def compared(head: OnnxRuntimeHead, states: np.ndarray) -> dict[str, float]:
    """How often the tokens are the same, and how many candidates were scored."""
    same = 0
    scored: list[int] = []
    for start in range(0, len(states), AT_ONCE):
        part = states[start : start + AT_ONCE]
        exact, greedy = head.run(part), head.run(part, greedy=True)
        same += int((exact.token_ids == greedy.token_ids).sum())
        for row in range(len(part)):
            known = dict(zip(exact.candidate_ids[row].tolist(), exact.candidate_logits[row].tolist(), strict=True))
            both = zip(greedy.candidate_ids[row].tolist(), greedy.candidate_logits[row].tolist(), strict=True)
            scored.append(sum(known.get(token) == logit for token, logit in both if token >= 0))
    low, high = np.percentile(scored, (50, 99))
    return {
        "states": len(states),
        "same_tokens": same,
        "candidates": head.shape.num_candidates,
        "scored_p50": float(low),
        "scored_p99": float(high),
        "scored_mean": float(np.mean(scored)),
    }


if __name__ == "__main__":
    main()
