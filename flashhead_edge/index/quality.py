"""How faithful a two-stage head is to the dense head, position by position and in sum."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError
from flashhead_edge.index.distribution import VocabularyDistribution, log_sum_exp
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from flashhead_edge.runtimes.base import HeadOutput, HeadRuntime

_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

#: Numbers held in one array over the vocabulary, or in gathered rows, at a time: 32 MB of float32.
_NUMBERS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class DomainQuality:
    """Fidelity on the states of one domain.

    Attributes:
        positions: Number of states.
        containment: Share of states whose dense token is a candidate.
        agreement: Share of states for which both heads choose the same token.
    """

    positions: int
    containment: float
    agreement: float


@dataclass(frozen=True)
class HeadQuality:
    """Fidelity of a two-stage head; divergences in nats, over the whole vocabulary.

    Attributes:
        positions: Number of states.
        containment: Share of states whose dense token is a candidate.
        agreement: Share of states for which both heads choose the same token.
        regret_mean: Mean of the dense head's greatest logit less its logit of the token chosen.
        kl_mean: Mean of KL(dense || two-stage).
        total_variation_mean: Mean of the total variation distance, 0 to 1.
        perplexity_dense: Of the tokens that followed, under the dense head; None where none is known.
        perplexity_two_stage: The same under the two-stage head.
        per_domain: By the name of the domain.
    """

    positions: int
    containment: float
    agreement: float
    regret_mean: float
    kl_mean: float
    total_variation_mean: float
    perplexity_dense: float | None
    perplexity_two_stage: float | None
    per_domain: dict[str, DomainQuality]

    def as_dict(self) -> dict[str, Any]:
        """Every attribute, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PositionScores:
    """Both heads on N states.

    Attributes:
        dense_tokens: Tokens of the dense head, lowest id among equals, [N] int64.
        tokens: Tokens of the two-stage head, [N] int64.
        contained: Whether the dense token is a candidate, [N] bool.
        regret: Dense logits lost by the choice, [N] float64.
        kl: KL(dense || two-stage) in nats, [N] float64.
        total_variation: [N] float64.
        surprise_dense: Negative log-probability of the token that followed, nan where unknown, [N] float64.
        surprise_two_stage: The same under the two-stage head.
    """

    dense_tokens: _Int64
    tokens: _Int64
    contained: npt.NDArray[np.bool_]
    regret: _Float64
    kl: _Float64
    total_variation: _Float64
    surprise_dense: _Float64
    surprise_two_stage: _Float64

    def summary(self, domain: npt.NDArray[np.str_]) -> HeadQuality:
        """Average, in all and for each domain.

        Args:
            domain: Domain of each state, [N].
        """
        agree = self.tokens == self.dense_tokens
        domains = {}
        for name in np.unique(domain):
            rows = domain == name
            domains[str(name)] = DomainQuality(
                int(rows.sum()), float(self.contained[rows].mean()), float(agree[rows].mean())
            )
        return HeadQuality(
            positions=len(self.tokens),
            containment=float(self.contained.mean()),
            agreement=float(agree.mean()),
            regret_mean=float(self.regret.mean()),
            kl_mean=float(self.kl.mean()),
            total_variation_mean=float(self.total_variation.mean()),
            perplexity_dense=_perplexity(self.surprise_dense),
            perplexity_two_stage=_perplexity(self.surprise_two_stage),
            per_domain=domains,
        )


def measure_positions(
    head: LmHead,
    runtime: HeadRuntime,
    index: HeadIndex,
    hidden: _Float32,
    next_token: _Int64,
    *,
    progress: Progress = no_progress,
) -> PositionScores:
    """Run both heads on states that had no part in calibration.

    Args:
        head: The dense head, the truth.
        runtime: Executes the two-stage head.
        index: Its index.
        hidden: Outputs of the final norm, [N, H] float32.
        next_token: Token that followed, -1 where unknown, [N] int64.
        progress: Told of every batch.

    Returns:
        What both heads say of every state; memory is bounded by the size of a batch, some 300 MB.

    Raises:
        OptionError: States, tokens, head and runtime do not fit each other.
    """
    _check(head, runtime, hidden, next_token)
    distribution = VocabularyDistribution(index, logit_scale=head.logit_scale, logit_softcap=head.logit_softcap)
    batch = max(1, _NUMBERS_AT_ONCE // head.vocab_size)
    parts = []
    for start in range(0, len(hidden), batch):
        states = hidden[start : start + batch]
        output = _run(runtime, states)
        logits = states @ head.rows.T
        if head.bias is not None:
            logits += head.bias
        logits = head.activate(logits)
        parts.append(_compare(logits, output, distribution, next_token[start : start + batch]))
        progress("comparing with the dense head", min(start + batch, len(hidden)), len(hidden))
    return PositionScores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _compare(
    logits: _Float32, output: HeadOutput, distribution: VocabularyDistribution, next_token: _Int64
) -> tuple[npt.NDArray[Any], ...]:
    """The fields of :class:`PositionScores` for one batch; ``logits`` [B, V] are used up."""
    rows = np.arange(len(logits))
    dense_tokens = logits.argmax(axis=1).astype(np.int64)
    contained = (output.candidate_ids == dense_tokens[:, None]).any(axis=1)
    regret = (logits[rows, dense_tokens] - logits[rows, output.token_ids]).astype(np.float64)

    known = next_token >= 0
    own = logits[rows, np.maximum(next_token, 0)].astype(np.float64)
    total = distribution.log_partition_beside(output, logits, np.maximum(next_token, 0))
    surprise = [np.where(known, partition - own, np.nan) for partition in (log_sum_exp(logits), total)]
    approximate = distribution.drawn_log_probabilities(logits, output).astype(np.float32)
    logits -= log_sum_exp(logits)[:, None].astype(np.float32)

    truth = np.exp(logits)
    np.subtract(logits, approximate, out=logits)
    logits *= truth
    # Rounding can leave a tiny negative number where the distributions are the same.
    kl = np.maximum(logits.sum(axis=1, dtype=np.float64), 0.0)
    np.exp(approximate, out=approximate)
    approximate -= truth
    variation = np.abs(approximate, out=approximate).sum(axis=1, dtype=np.float64) / 2
    return dense_tokens, output.token_ids, contained, regret, kl, variation, *surprise


def _run(runtime: HeadRuntime, states: _Float32) -> HeadOutput:
    """Run the two-stage head in batches small enough for its gathered rows."""
    batch = max(1, _NUMBERS_AT_ONCE // (runtime.shape.num_candidates * runtime.shape.hidden_size))
    parts = [runtime.run(states[start : start + batch]) for start in range(0, len(states), batch)]
    return type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _perplexity(surprise: _Float64) -> float | None:
    known = surprise[~np.isnan(surprise)]
    return float(np.exp(known.mean())) if len(known) else None


def _check(head: LmHead, runtime: HeadRuntime, hidden: _Float32, next_token: _Int64) -> None:
    shape = runtime.shape
    if (head.vocab_size, head.hidden_size) != (shape.vocab_size, shape.hidden_size):
        raise OptionError(
            "The dense head is not the one that was clustered.",
            found=f"[{head.vocab_size}, {head.hidden_size}]",
            expected=f"[{shape.vocab_size}, {shape.hidden_size}]",
            hint="compare a bundle with the model that it was exported from",
        )
    shape.check_states(hidden)
    if next_token.shape != (len(hidden),) or int(next_token.max()) >= head.vocab_size:
        raise OptionError(
            "The following tokens do not fit the states.",
            found=f"shape {list(next_token.shape)}, ids up to {int(next_token.max(initial=-1))}",
            expected=f"[{len(hidden)}], ids below {head.vocab_size}",
        )
