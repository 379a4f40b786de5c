"""What is profiled."""

from __future__ import annotations

from dataclasses import dataclass

from flashhead_edge.errors import OptionError, did_you_mean

HEADS = ("two-stage", "dense")
_LEAST_TOKENS = 8


@dataclass(frozen=True)
class ProfileOptions:
    """What is profiled.

    Attributes:
        head: "two-stage" or "dense".
        tokens: Steps that are measured plain, and as many profiled.
        threads: Threads of the operators.
        rounds: Turns that plain and profiled steps take.
        scaling: Measure series of the head alone too: probes, batch, clusters, vocabulary.

    Raises:
        OptionError: A value is out of range or unknown.
    """

    head: str = "two-stage"
    tokens: int = 128
    threads: int = 1
    rounds: int = 4
    scaling: bool = False

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise OptionError(f"There is no head {self.head!r} to profile.", hint=did_you_mean(self.head, HEADS))
        if self.tokens < _LEAST_TOKENS:
            raise OptionError("The number of tokens is too small.", found=self.tokens, expected=f">= {_LEAST_TOKENS}")
        if self.threads < 1 or not 1 <= self.rounds <= self.tokens:
            raise OptionError(
                "Threads or rounds are out of range.", found=f"{self.threads} threads, {self.rounds} rounds"
            )
        if self.scaling and self.head != "two-stage":
            raise OptionError("Series are of the two-stage head.", found=self.head)
