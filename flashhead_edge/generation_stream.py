"""A generation under way, piece by piece."""

from __future__ import annotations

import logging
import time
from collections import abc
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flashhead_edge.generation import Generation
from flashhead_edge.text_writer import TextWriter
from flashhead_edge.tracing import span

if TYPE_CHECKING:
    from flashhead_edge.drafts import Drafter
    from flashhead_edge.generator import Generator
    from flashhead_edge.runtimes.decoder import AnyDecoder

_log = logging.getLogger(__name__)


class GenerationStream(Iterator[str]):
    """A generation under way: iterate over it for the pieces of its text, then look at :attr:`result`.

    A piece is whole characters and never a part of a stop string. Ctrl-C during a step ends the iteration with what
    there is.

    Args:
        generator: The model; where its recall monitor asks for it, the text goes on with the dense head.
        writer: Chooses the tokens.
        drafter: Guesses tokens that the model checks together, or None.
        num_drafts: Guesses at a time.
    """

    def __init__(
        self, generator: Generator, writer: TextWriter, *, drafter: Drafter | None = None, num_drafts: int = 0
    ) -> None:
        self._generator = generator
        self._writer = writer
        self._drafter = drafter
        self._num_drafts = num_drafts
        self._drafted = self._accepted = 0
        self._pieces = self._run()

    def __iter__(self) -> GenerationStream:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """End the generation; :attr:`result` is then what there is."""
        self._pieces.close()
        self._writer.settle()

    @property
    def result(self) -> Generation:
        """The generation so far; before its end, ``finish_reason`` is "interrupted"."""
        return replace(self._writer.result, drafted_tokens=self._drafted, accepted_drafts=self._accepted)

    def _run(self) -> abc.Generator[str, None, None]:
        """Yield pieces of text, and say what came of it."""
        with span(self._generator.recorder.tracer, "generate", prompt_tokens=len(self._writer.prompt_ids)):
            yield from self._pieces_of_text()
        result = self.result
        fields = {
            "prompt_tokens": result.prompt_tokens,
            "tokens": len(result.token_ids),
            "finish_reason": result.finish_reason,
            "time_to_first_token_ms": result.time_to_first_token_ms,
            "tokens_per_second": result.tokens_per_second,
            "head": result.head,
            "runtime": result.runtime,
        }
        _log.info("text generated", extra={"fields": fields})

    def _pieces_of_text(self) -> abc.Generator[str, None, None]:
        """Yield pieces of text until something ends the generation."""
        writer, decoder, recorder = self._writer, self._decoder(), self._generator.recorder
        decoder.reset(positions=writer.most_positions)
        fed = list(writer.prompt_ids)
        drafts: list[int] = []
        try:
            while not writer.finished:
                known = len(writer.prompt_ids) + len(writer.token_ids)
                start = time.perf_counter()
                output = decoder.step(np.array([fed], dtype=np.int64), scored=len(drafts) + 1, greedy=writer.is_greedy)
                recorder.ran(start, fed=len(fed), is_prompt=not writer.token_ids)
                for row in range(len(drafts) + 1):
                    if piece := writer.write(output, row):
                        yield piece
                    if writer.finished or row == len(drafts) or writer.token_ids[-1] != drafts[row]:
                        break
                if drafts:
                    self._accepted += row
                    decoder.rewind(known + row)
                drafts = self._draft()
                fed = [writer.token_ids[-1], *drafts]
                if decoder is not self._decoder():
                    decoder = self._decoder()
                    decoder.reset(positions=writer.most_positions)
                    fed = [*writer.prompt_ids, *writer.token_ids, *drafts]
        except KeyboardInterrupt:
            pass  # the finish reason says so
        if piece := writer.settle():
            yield piece

    def _decoder(self) -> AnyDecoder:
        """What runs the model now."""
        monitor = self._generator.monitor
        return self._generator.dense_decoder if monitor is not None and monitor.wants_dense else self._generator.decoder

    def _draft(self) -> list[int]:
        """Guess tokens, as many as the text may still have after the next one."""
        writer = self._writer
        count = min(self._num_drafts, writer.most_positions - len(writer.prompt_ids) - len(writer.token_ids) - 1)
        if self._drafter is None or count < 1 or writer.finished:
            return []
        drafts = self._drafter.draft([*writer.prompt_ids, *writer.token_ids], count)[:count]
        self._drafted += len(drafts)
        return drafts
