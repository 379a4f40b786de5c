"""One generation: what it is asked for, its course, and what comes of it."""

from __future__ import annotations

import time
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from flashhead_edge.context_candidates import ContextCandidates
from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.sampling import Sampler, SamplingOptions
from flashhead_edge.stopping import StopStrings
from flashhead_edge.token_scores import TokenScores
from flashhead_edge.tokenizer import StreamDecoder

if TYPE_CHECKING:
    from flashhead_edge.generator import Generator

FinishReason = Literal["stop", "length", "interrupted"]


class GenerationKeywords(TypedDict, total=False):
    """Fields of :class:`GenerationOptions` and :class:`SamplingOptions`, side by side."""

    max_new_tokens: int
    stop: str | Sequence[str]
    chat: bool
    logprobs: bool
    top_logprobs: int
    context_candidates: int
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
        context_candidates: Positions whose likeliest tokens stay candidates of the two-stage head; 0 is none.
    """

    max_new_tokens: int = 128
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stop: tuple[str, ...] = ()
    chat: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    context_candidates: int = 64

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise OptionError(
                "The number of new tokens is out of range.", found=self.max_new_tokens, expected="1 or more"
            )
        for name in ("top_logprobs", "context_candidates"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is out of range.", found=getattr(self, name), expected="0 or more")

    @classmethod
    def of(cls, **keywords: Any) -> GenerationOptions:
        """Options from their fields and those of the sampling, side by side.

        Raises:
            OptionError: A keyword is unknown, or a value out of range.
        """
        own = {item.name for item in fields(cls)} - {"sampling"}
        known = own | {item.name for item in fields(SamplingOptions)}
        for name in keywords:
            if name not in known:
                raise OptionError(f"There is no option {name!r}.", hint=did_you_mean(name, known))
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
        providers: Execution providers of the runtime, as it reports them.
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
    providers: tuple[str, ...]


class GenerationStream(Iterator[str]):
    """A generation under way: iterate over it for the pieces of its text, then look at :attr:`result`.

    A piece is whole characters and never a part of a stop string. Ctrl-C during a step ends the iteration with what
    there is.

    Args:
        generator: Whose model to run.
        prompt_ids: The prompt.
        options: How far to generate, and how to choose.
        start: ``time.perf_counter()`` from which the first token is timed.
    """

    def __init__(
        self, generator: Generator, prompt_ids: Sequence[int], options: GenerationOptions, start: float
    ) -> None:
        self._generator = generator
        self._prompt_ids = prompt_ids
        self._options = options
        self._decoder = StreamDecoder(generator.tokenizer)
        self._stop = StopStrings(options.stop)
        self._text = ""
        self._token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._top_logprobs: list[tuple[tuple[int, float], ...]] = []
        self._finish_reason: FinishReason = "interrupted"
        self._start = self._first = self._last = start
        self._pieces = self._run()

    def __iter__(self) -> GenerationStream:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """End the generation; :attr:`result` is then what there is."""
        self._pieces.close()
        self._settle()

    @property
    def result(self) -> Generation:
        """The generation so far; before its end, ``finish_reason`` is "interrupted"."""
        count = len(self._token_ids)
        return Generation(
            text=self._text,
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs) if self._options.logprobs else None,
            top_logprobs=tuple(self._top_logprobs) if self._options.top_logprobs else None,
            finish_reason=self._finish_reason,
            prompt_tokens=len(self._prompt_ids),
            time_to_first_token_ms=(self._first - self._start) * 1e3 if count else None,
            tokens_per_second=(count - 1) / (self._last - self._first) if count > 1 else None,
            head=self._generator.head,
            runtime=self._generator.runtime,
            providers=self._generator.providers,
        )

    def _run(self) -> abc.Generator[str, None, None]:
        """Yield pieces of text until something ends the generation."""
        end_ids = frozenset(self._generator.bundle.manifest.eos_token_ids)
        try:
            for token_id in self._tokens():
                if token_id in end_ids:
                    self._finish_reason = "stop"
                    break
                if piece := self._accept(self._decoder.push(token_id)):
                    yield piece
                if self._stop.reached:
                    break
            else:
                self._finish_reason = "length"
        except KeyboardInterrupt:
            pass  # the finish reason says so
        if piece := self._settle():
            yield piece

    def _tokens(self) -> Iterator[int]:
        """Run the model and choose tokens, at most ``max_new_tokens``."""
        options, decoder = self._options, self._generator.decoder
        end_ids = self._generator.bundle.manifest.eos_token_ids
        sampler = Sampler(options.sampling, end_ids=end_ids)
        wants_logprobs = options.logprobs or options.top_logprobs
        context = ContextCandidates(options.context_candidates) if options.context_candidates else None
        vocabulary = None
        if wants_logprobs or context or sampler.changes_scores or not options.sampling.is_greedy:
            vocabulary = self._generator.vocabulary
        decoder.reset(positions=len(self._prompt_ids) + options.max_new_tokens)
        fed = self._prompt_ids
        for count in range(options.max_new_tokens):
            output = decoder.step(np.array([fed], dtype=np.int64))
            scores = TokenScores(output.head, output.hidden_states[0], vocabulary=vocabulary)
            if context is not None and vocabulary is not None:
                context.process(scores, self._prompt_ids, self._token_ids)
            token_id = sampler.choose(scores, self._prompt_ids, self._token_ids)
            self._last = time.perf_counter()
            self._token_ids.append(token_id)
            if wants_logprobs:  # of the model: before processors and temperature
                self._record(TokenScores(output.head, output.hidden_states[0], vocabulary=vocabulary), token_id)
            if count == 0:
                self._first = self._last
            yield token_id
            fed = (token_id,)

    def _record(self, scores: TokenScores, token_id: int) -> None:
        """Keep the log-probabilities that were asked for."""
        if self._options.logprobs:
            self._logprobs.append(float(scores.logprobs(np.array([token_id]))[0]))
        if self._options.top_logprobs:
            self._top_logprobs.append(scores.likeliest(self._options.top_logprobs))

    def _accept(self, text: str) -> str:
        """Pass text through the stop strings; what comes out belongs to the result."""
        piece = self._stop.push(text)
        if self._stop.reached:
            self._finish_reason = "stop"
        self._text += piece
        return piece

    def _settle(self) -> str:
        """Release the text held back for half characters and beginnings of stop strings."""
        if self._stop.reached:
            return ""
        piece = self._accept(self._decoder.flush())
        if not self._stop.reached:
            rest = self._stop.flush()
            self._text += rest
            piece += rest
        return piece
