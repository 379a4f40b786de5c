"""The course of one text: tokens are chosen from what the head says, become text, and something ends it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flashhead_edge.constraints import ConstraintProcessor
from flashhead_edge.context_candidates import ContextCandidates
from flashhead_edge.generation import FinishReason, Generation, GenerationOptions
from flashhead_edge.monitor import Recall, joined
from flashhead_edge.runtimes.base import HeadOutput, StepOutput
from flashhead_edge.sampling import Sampler
from flashhead_edge.stopping import StopStrings
from flashhead_edge.token_scores import TokenScores
from flashhead_edge.tokenizer import StreamDecoder
from flashhead_edge.tracing import span

if TYPE_CHECKING:
    from flashhead_edge.generator import Generator


class TextWriter:
    """Writes one text, token by token, from steps that somebody else runs.

    Args:
        generator: Whose tokenizer, vocabulary and ends of text count.
        prompt_ids: The prompt.
        options: How far to generate, and how to choose.
        start: ``time.perf_counter()`` from which the first token is timed.

    Attributes:
        prompt_ids: The prompt.
        token_ids: Tokens written so far.
    """

    def __init__(
        self, generator: Generator, prompt_ids: Sequence[int], options: GenerationOptions, start: float
    ) -> None:
        self.prompt_ids = prompt_ids
        self.token_ids: list[int] = []
        self._generator = generator
        self._options = options
        self._end_ids = frozenset(generator.bundle.manifest.eos_token_ids)
        self._constraint = None
        if options.constraint is not None:
            self._constraint = ConstraintProcessor(
                options.constraint, generator.bundle, scores_all=options.sampling.is_greedy
            )
        first = [self._constraint] if self._constraint is not None else []
        self._sampler = Sampler(options.sampling, end_ids=sorted(self._end_ids), processors=first)
        self._context = ContextCandidates(options.context_candidates) if options.context_candidates else None
        self._wants_logprobs = bool(options.logprobs or options.top_logprobs)
        self._monitor = generator.monitor
        self._recorder = generator.recorder
        self._tracer = generator.recorder.tracer
        self._recorder.began(len(prompt_ids))
        self._checks: list[Recall] = []
        self._needs_all = self._wants_logprobs or self._sampler.changes_scores or not options.sampling.is_greedy
        self._is_plain = not self._needs_all and self._context is not None and generator.exact is None
        self._exact = generator.exact
        needed = self._needs_all or self._context or self._monitor
        self._vocabulary = generator.vocabulary if needed and self._exact is None else None
        self._decoder = StreamDecoder(generator.tokenizer)
        self._stop = StopStrings(options.stop)
        self._text = ""
        self._logprobs: list[float] = []
        self._top_logprobs: list[tuple[tuple[int, float], ...]] = []
        self._finish_reason: FinishReason = "interrupted"
        self._start = self._first = self._last = start

    @property
    def finished(self) -> bool:
        """Whether something has ended the text."""
        return self._finish_reason != "interrupted"

    @property
    def is_greedy(self) -> bool:
        """Whether the head's greedy tokens and the exact logits of some others decide everything."""
        return not self._needs_all

    @property
    def most_positions(self) -> int:
        """Positions that prompt and text can take in a cache."""
        return len(self.prompt_ids) + self._options.max_new_tokens

    def write(self, output: StepOutput, row: int = 0) -> str:
        """Choose the next token.

        Args:
            output: What a step says of the position after the last token.
            row: Its row.

        Returns:
            The new piece of text, perhaps empty: half characters and what may be a stop string are held back.

        Raises:
            BundleError: The logits are not finite.
            OptionError: The options leave no token that may come.
        """
        with span(self._tracer, "choice"):
            token_id = self._choose(output, row)
        self._last = time.perf_counter()
        self._recorder.tokens += 1
        if not self.token_ids:
            self._first = self._last
        self.token_ids.append(token_id)
        if self._wants_logprobs:  # of the model: before processors and temperature
            self._record(self._scores(output, row))
        if token_id in self._end_ids:
            self._finish_reason = "stop"
            return ""
        with span(self._tracer, "detokenization"):
            piece = self._accept(self._decoder.push(token_id))
        if self._constraint is not None and self._constraint.is_complete(self.token_ids):
            self._finish_reason = "stop"
        if not self.finished and len(self.token_ids) == self._options.max_new_tokens:
            self._finish_reason = "length"
        return piece

    def _choose(self, output: StepOutput, row: int) -> int:
        """The next token."""
        is_fast = self._is_plain and (self._monitor is None or self._monitor.passes())
        if is_fast and self._context is not None and self._vocabulary is not None:
            return self._context.best(output, row, self._vocabulary.rows)
        scores = self._scores(output, row)
        if self._context is not None and self._vocabulary is not None:
            self._context.process(scores, self.prompt_ids, self.token_ids)
        if self._monitor is not None and self._vocabulary is not None:
            with span(self._tracer, "monitor"):
                check = self._monitor.step(scores)
            if check is not None:
                self._checks.append(check)
        return self._sampler.choose(scores, self.prompt_ids, self.token_ids)

    def settle(self) -> str:
        """Release the text held back for half characters and beginnings of stop strings; the last piece."""
        if self._stop.reached:
            return ""
        piece = self._accept(self._decoder.flush())
        if not self._stop.reached:
            rest = self._stop.flush()
            self._text += rest
            piece += rest
        return piece

    @property
    def result(self) -> Generation:
        """The generation so far; before its end, ``finish_reason`` is "interrupted"."""
        count = len(self.token_ids)
        return Generation(
            text=self._text,
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self._logprobs) if self._options.logprobs else None,
            top_logprobs=tuple(self._top_logprobs) if self._options.top_logprobs else None,
            finish_reason=self._finish_reason,
            prompt_tokens=len(self.prompt_ids),
            time_to_first_token_ms=(self._first - self._start) * 1e3 if count else None,
            tokens_per_second=(count - 1) / (self._last - self._first) if count > 1 else None,
            head=self._generator.head,
            runtime=self._generator.runtime,
            runtime_reason=self._generator.runtime_reason,
            providers=self._generator.providers,
            recall=joined(self._checks).as_dict() if self._monitor is not None else None,
        )

    def _scores(self, output: StepOutput, row: int) -> TokenScores:
        """What a step says, or the exact head, of the next token."""
        state = output.hidden_states[row]
        if self._exact is None:
            return TokenScores(output.head, state, row, vocabulary=self._vocabulary)
        if self._needs_all:
            logits = self._exact.all_logits(state)
            ids = np.arange(len(logits))
        else:
            ids, logits = self._exact.best(state)
        return TokenScores(HeadOutput(ids[:1], ids[None], logits[None], np.empty((1, 0), np.float32)), state)

    def _record(self, scores: TokenScores) -> None:
        """Keep the log-probabilities that were asked for."""
        if self._options.logprobs:
            self._logprobs.append(float(scores.logprobs(np.array(self.token_ids[-1:]))[0]))
        if self._options.top_logprobs:
            self._top_logprobs.append(scores.likeliest(self._options.top_logprobs))

    def _accept(self, text: str) -> str:
        """Pass text through the stop strings; what comes out belongs to the result."""
        piece = self._stop.push(text)
        if self._stop.reached:
            self._finish_reason = "stop"
        self._text += piece
        return piece
