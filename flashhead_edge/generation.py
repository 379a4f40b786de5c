"""One generation: what it is asked for, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

from flashhead_edge.constraints import Constraint
from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.sampling import SamplingOptions

#: Keywords that make a constraint, named as the class methods that do.
_CONSTRAINTS = ("regex", "json_schema", "choice", "grammar")
FinishReason = Literal["stop", "length", "interrupted"]


class GenerationKeywords(TypedDict, total=False):
    """Fields of :class:`GenerationOptions` and :class:`SamplingOptions`, side by side."""

    max_new_tokens: int
    stop: str | Sequence[str]
    chat: bool
    logprobs: bool
    top_logprobs: int
    context_candidates: int
    num_drafts: int
    constraint: Constraint | None
    regex: str
    json_schema: str | Mapping[str, Any]
    choice: Sequence[str]
    grammar: str
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int | None
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    allowed_ids: tuple[int, ...] | None
    bad_words: tuple[tuple[int, ...], ...]
    min_tokens: int


@dataclass(frozen=True)
class GenerationOptions:
    """How far to generate, and how to choose the tokens.

    Attributes:
        max_new_tokens: Upper limit of the generated tokens.
        sampling: How each token is chosen.
        stop: Texts that end the generation and are left out of its text.
        chat: Send the prompt through the model's chat template, as a user's message.
        logprobs: Record the log-probability of every chosen token.
        top_logprobs: Record this many of the likeliest tokens at every step, with their log-probabilities.
        constraint: What the text must be, or None.
        num_drafts: Tokens guessed at a time and checked in one step; 0 is none. Guesses come from the generator's draft
            model, or from the text itself where it has none.
        context_candidates: Positions whose likeliest tokens stay candidates of the two-stage head; 0 is none.
    """

    max_new_tokens: int = 128
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stop: tuple[str, ...] = ()
    chat: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    context_candidates: int = 64
    num_drafts: int = 0
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise OptionError(
                "The number of new tokens is out of range.", found=self.max_new_tokens, expected="1 or more"
            )
        for name in ("top_logprobs", "context_candidates", "num_drafts"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is out of range.", found=getattr(self, name), expected="0 or more")

    @classmethod
    def of(cls, **keywords: Any) -> GenerationOptions:
        """Options from their fields and those of the sampling, side by side, and ``regex`` and the like.

        Raises:
            OptionError: A keyword is unknown, or a value out of range.
        """
        own = {item.name for item in fields(cls)} - {"sampling"}
        known = own | set(_CONSTRAINTS) | {item.name for item in fields(SamplingOptions)}
        for name in keywords:
            if name not in known:
                raise OptionError(f"There is no option {name!r}.", hint=did_you_mean(name, known))
        constraints = [name for name in _CONSTRAINTS if name in keywords]
        if len(constraints) + ("constraint" in keywords) > 1:
            raise OptionError("A text follows one constraint.", found=", ".join(constraints), expected="one of them")
        for name in constraints:
            keywords["constraint"] = getattr(Constraint, name)(keywords.pop(name))
        if isinstance(keywords.get("stop"), str):
            keywords["stop"] = (keywords["stop"],)
        chosen = {name: value for name, value in keywords.items() if name in own}
        sampling = SamplingOptions(**{name: value for name, value in keywords.items() if name not in own})
        return cls(sampling=sampling, **chosen)


@dataclass(frozen=True)
class Generation:
    """A generated text and how it came about.

    Attributes:
        text: The new text, without special tokens and stop strings.
        token_ids: Every generated token, also the end-of-sequence token and those of a stop string.
        logprobs: Natural log-probabilities of ``token_ids`` over the whole vocabulary, before temperature and filters;
            None where they were not asked for.
        top_logprobs: The likeliest tokens of every step and their log-probabilities, likeliest first, as asked for.
        finish_reason: "stop" (end of sequence or stop string), "length" or "interrupted".
        prompt_tokens: Tokens of the prompt, special ones included.
        time_to_first_token_ms: From the call to the first token, tokenization and prefill included; None without one.
        tokens_per_second: Over the decode steps after the first token; None where there were none.
        head: "two-stage" or "dense".
        runtime: What executed the model.
        runtime_reason: Why it was this runtime.
        providers: Execution providers of the runtime, as it reports them.
        drafted_tokens: Tokens that were guessed.
        accepted_drafts: Guesses that were right.
        recall: What the recall monitor found in this text, where it watches; see :class:`Recall`.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None
    finish_reason: FinishReason
    prompt_tokens: int
    time_to_first_token_ms: float | None
    tokens_per_second: float | None
    head: str
    runtime: str
    runtime_reason: str
    providers: tuple[str, ...]
    drafted_tokens: int = 0
    accepted_drafts: int = 0
    recall: dict[str, float | int | None] | None = None
