"""What must hold between two engines' outputs."""

from __future__ import annotations

from typing import Any


def assert_same_tokens(case: str, expected: list[Any], found: list[Any]) -> None:
    """Every completion of every request has the same tokens."""
    assert [[c["tokens"] for c in r] for r in found] == [[c["tokens"] for c in r] for r in expected], case


def assert_same_logprobs(case: str, expected: list[Any], found: list[Any], tolerance: float) -> None:
    """Log-probabilities of the same tokens, of text and prompt, differ by ``tolerance`` at most.

    A token that only one of the two reports must be as likely as one that both do: which of two equal ones is among the
    best is chance.
    """
    for theirs, ours in zip(flat(expected), flat(found), strict=True):
        least = min(theirs.values(), default=0.0)
        for token, value in theirs.items():
            assert abs(ours.get(token, least) - value) <= tolerance, f"{case}: token {token}, {theirs} and {ours}"


def flat(requests: list[Any]) -> list[dict[str, float]]:
    """Every position that has log-probabilities."""
    return [
        position
        for request in requests
        for completion in request
        for kind in ("logprobs", "prompt_logprobs")
        for position in completion[kind] or []
    ]
