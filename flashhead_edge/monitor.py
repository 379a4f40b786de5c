"""Recall monitor: how often the two-stage head chooses what the dense head would, while it runs.

Every N-th step, candidates are compared with a part of the closed clusters, scored exactly: one of S parts, each in
its turn. A missed token lies in one part, so a check finds it with probability 1 / S, and S times the number of misses
found is an unbiased estimate of the misses at the checked steps, at a cost that does not grow with the vocabulary.
Regret, the logit lost by a miss, is estimated alike.

Misses are rare and far apart, so the number found is Poisson distributed. A floor of agreement counts as broken only
when even the lower limit of the misses, at 95 % and with the approximation of Wilson and Hilferty (1931), is beyond it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from flashhead_edge.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from flashhead_edge.token_scores import TokenScores

_log = logging.getLogger(__name__)

FloorAction = Literal["log", "probes", "dense"]
_ACTIONS: tuple[FloorAction, ...] = ("log", "probes", "dense")
#: One-sided 95 % quantile of the normal distribution.
_QUANTILE = 1.645


@dataclass(frozen=True)
class MonitorOptions:
    """How often to check, and what to do about misses.

    Attributes:
        every: Steps from one check to the next, N.
        rows: Rows scored in a check, at least; decides the number of parts S.
        floor: Least agreement, 0 to 1; None only watches.
        action: When the floor is broken: "log" a warning, open more clusters ("probes"), or go on with the "dense"
            head.
        more_probes: Clusters opened besides by "probes", each time the floor is broken again.

    Raises:
        OptionError: A value is out of range.
    """

    every: int = 64
    rows: int = 8192
    floor: float | None = None
    action: FloorAction = "log"
    more_probes: int = 64

    def __post_init__(self) -> None:
        for name in ("every", "rows", "more_probes"):
            if getattr(self, name) < 1:
                raise OptionError(f"The monitor's {name} is out of range.", found=getattr(self, name), expected=">= 1")
        if self.floor is not None and not 0 < self.floor < 1:
            raise OptionError("The floor of agreement is out of range.", found=self.floor, expected="between 0 and 1")
        if self.action not in _ACTIONS:
            raise OptionError(f"There is no action {self.action!r}.", hint=did_you_mean(self.action, _ACTIONS))


@dataclass(frozen=True)
class Recall:
    """What checks have found.

    Attributes:
        steps: Steps seen.
        checks: Steps checked.
        parts: S; a check looks at one of so many parts of the closed clusters.
        misses: Misses found.
        regret: Logits lost by the misses found, in sum.
    """

    steps: int
    checks: int
    parts: int
    misses: int
    regret: float

    @property
    def agreement(self) -> float | None:
        """Estimated share of steps with the dense head's token, None before the first check."""
        return max(0.0, 1.0 - self.parts * self.misses / self.checks) if self.checks else None

    @property
    def regret_mean(self) -> float | None:
        """Estimated mean of the logit lost in a step, None before the first check."""
        return self.parts * self.regret / self.checks if self.checks else None

    @property
    def highest_agreement(self) -> float:
        """Upper limit of the agreement, at 95 %."""
        if not self.misses:
            return 1.0
        third = 1 / (9 * self.misses)
        fewest = self.misses * (1 - third - _QUANTILE * math.sqrt(third)) ** 3
        return max(0.0, 1.0 - self.parts * fewest / self.checks)

    def as_dict(self) -> dict[str, float | int | None]:
        """Ready for JSON."""
        return {
            "steps": self.steps,
            "checks": self.checks,
            "agreement": self.agreement,
            "agreement_upper_95": self.highest_agreement,
            "misses_found": self.misses,
            "parts": self.parts,
            "regret_mean": self.regret_mean,
        }


class RecallMonitor:
    """Checks steps of all texts of a process, or of one; see the module's docstring.

    Args:
        options: How often, and what to do.
    """

    def __init__(self, options: MonitorOptions) -> None:
        self.options = options
        self._steps = self._checks = self._misses = 0
        self._parts = 1
        self._regret = 0.0
        self._answered = 0
        self.raised_probes = 0
        self.wants_dense = False

    @property
    def recall(self) -> Recall:
        """What checks have found so far."""
        return Recall(self._steps, self._checks, self._parts, self._misses, self._regret)

    def passes(self) -> bool:
        """Whether the next step needs neither a check nor more clusters; if so it is counted, instead of by step."""
        if self.raised_probes or (self._steps + 1) % self.options.every == 0:
            return False
        self._steps += 1
        return True

    def step(self, scores: TokenScores) -> Recall | None:
        """Count a step, check it if it is its turn, and act when the floor is broken.

        Args:
            scores: The step's scores, before processors change them; more clusters are opened in them where the floor
                was broken and probes were to be raised.

        Returns:
            What the check of this step alone found, None where it was not checked.
        """
        if self.raised_probes:
            scores.open_next(self.raised_probes)
        self._steps += 1
        if self._steps % self.options.every:
            return None
        closed = scores.closed_clusters()
        size = scores.cluster_size
        self._parts = max(1, scores.num_clusters * size // self.options.rows)
        part = closed[closed % self._parts == self._checks % self._parts]
        self._checks += 1
        best = float(scores.logits.max())
        highest = scores.greatest_in(part)
        found = int(highest > best)
        self._misses += found
        self._regret += max(0.0, highest - best)
        self._act()
        return Recall(1, 1, self._parts, found, max(0.0, highest - best))

    def _act(self) -> None:
        """Answer a broken floor, once for each miss that keeps it broken."""
        recall, options = self.recall, self.options
        if options.floor is None or recall.highest_agreement >= options.floor or self._answered == self._misses:
            return
        self._answered = self._misses
        _log.warning(
            "agreement of the two-stage head is %.4f, at most %.4f, below the floor of %.4f after %d checks: %s",
            recall.agreement,
            recall.highest_agreement,
            options.floor,
            recall.checks,
            {"log": "going on", "probes": "opening more clusters", "dense": "going on with the dense head"}[
                options.action
            ],
            extra={"fields": recall.as_dict()},
        )
        if options.action == "probes":
            self.raised_probes += options.more_probes
        elif options.action == "dense":
            self.wants_dense = True


def joined(parts: list[Recall]) -> Recall:
    """What several checks found together, such as those of one text."""
    checks = sum(part.checks for part in parts)
    return Recall(
        sum(part.steps for part in parts),
        checks,
        max((part.parts for part in parts), default=1),
        sum(part.misses for part in parts),
        float(np.sum([part.regret for part in parts])),
    )
