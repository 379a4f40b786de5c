"""Times of whole decode steps of a bundle, with several heads and without any, in turn."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.head_timing import spread
from benchmarks.undisturbed import go_first
from flashhead_edge.bench.heads import BODY_ALONE, decoding_graphs
from flashhead_edge.bench.options import Test
from flashhead_edge.bench.turns import PROMPT_LENGTH, PROMPTS, SETTLING, take_turn
from flashhead_edge.bundle import Bundle
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.tokenizer import Tokenizer

HEADS = ("two-stage", "two-stage-portable", "dense-int8", "dense-int4")
_TOKENS, _TURNS = 32, 6


def measure_steps(bundle: Bundle, *, threads: int) -> list[dict[str, Any]]:
    """Time steps of one text.

    Args:
        bundle: A bundle with a body.
        threads: Threads of the operators.

    Returns:
        For the body alone and for each head: its name, the positions in the cache in the middle of the steps, and the
        step's median and middle 80 % in milliseconds.
    """
    go_first()
    body = bundle.manifest.body
    assert body is not None
    ids = Tokenizer(bundle.path).encode(PROMPTS[0])
    test = Test("tg", _TOKENS)
    with decoding_graphs(bundle, HEADS) as graphs:
        decoders = {
            name: Decoder(
                path, body, threads=threads, outputs=("hidden_states" if name == BODY_ALONE else "token_ids",)
            )
            for name, path in graphs.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in decoders}
        for _ in range(_TURNS):
            for name, decoder in decoders.items():
                seconds[name] += list(take_turn(decoder, test, ids).seconds)
    positions = PROMPT_LENGTH + SETTLING + _TOKENS // 2
    return [{"head": name, "positions": positions, **spread(np.array(found))} for name, found in seconds.items()]
