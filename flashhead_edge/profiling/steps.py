"""Decode steps as a generator takes them, each timed: the model, then the choice of the token and its text."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.bench.turns import PROMPT_LENGTH, PROMPTS
from flashhead_edge.generation import GenerationOptions
from flashhead_edge.generator import Generator
from flashhead_edge.native import phases
from flashhead_edge.runtimes.decoder import AnyDecoder, Decoder
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.text_writer import TextWriter

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

#: Steps that do not count: threads and caches settle.
SETTLING = 16


class TimedDecoder(Decoder):
    """A decoder that knows how long ONNX Runtime took.

    Attributes:
        run_seconds: Of the last step, without what Python does around it.
    """

    run_seconds = 0.0

    def _execute(self) -> None:
        start = time.perf_counter()
        super()._execute()
        self.run_seconds = time.perf_counter() - start


class TimedGenerator(Generator):
    """A generator on ONNX Runtime with a :class:`TimedDecoder`.

    Args:
        bundle: An opened bundle with a body.
        head: "two-stage" or "dense".
        threads: Threads of the operators.
    """

    timed_decoder: TimedDecoder

    def __init__(self, bundle: Bundle, *, head: str, threads: int) -> None:
        super().__init__(bundle, head=head, runtime="onnxruntime", threads=threads)

    def _open_decoder(self, graph: str) -> AnyDecoder:
        body = self.bundle.manifest.body
        assert body is not None
        self.timed_decoder = TimedDecoder(choose_graph(self.bundle, graph), body, threads=self._threads)
        return self.timed_decoder


def positions_of(steps: int) -> int:
    """Positions in the cache that so many steps need."""
    return PROMPT_LENGTH + SETTLING + steps + 1


@dataclass(frozen=True)
class StepTimes:
    """Times of N steps, in milliseconds.

    Attributes:
        model: Of the decoder, [N] float64.
        run: Of ONNX Runtime in it, [N] float64.
        choice: Of choosing the token and making text of it, [N] float64.
        phases: Of the native head's centroids, top-k, gather and dot, [N, 3] float64; None for other heads.
        positions: Tokens in the cache before each step, [N] int64.
    """

    model: npt.NDArray[np.float64]
    run: npt.NDArray[np.float64]
    choice: npt.NDArray[np.float64]
    phases: npt.NDArray[np.float64] | None
    positions: npt.NDArray[np.int64]

    @property
    def step(self) -> npt.NDArray[np.float64]:
        """Of whole steps."""
        return self.model + self.choice

    @staticmethod
    def joined(parts: list[StepTimes]) -> StepTimes:
        """Steps of several turns, one after another."""
        seen = [part.phases for part in parts if part.phases is not None]
        return StepTimes(
            np.concatenate([part.model for part in parts]),
            np.concatenate([part.run for part in parts]),
            np.concatenate([part.choice for part in parts]),
            np.concatenate(seen) if seen else None,
            np.concatenate([part.positions for part in parts]),
        )


def take_steps(
    generator: Generator,
    decoder: TimedDecoder,
    steps: int,
    *,
    native_head: bool = False,
    after: Callable[[int], None] | None = None,
) -> StepTimes:
    """Read a prompt and take steps; greedy, and not ended by any token.

    Args:
        generator: Chooses tokens and makes text of them.
        decoder: Runs the model.
        steps: N, after :data:`SETTLING` that do not count.
        native_head: Whether the model's head may be the native library's, whose phases can be timed.
        after: Called after each step that counts, with its number, outside the times.

    Returns:
        The times.
    """
    prompt = generator.tokenizer.encode(PROMPTS[0])[:PROMPT_LENGTH]
    options = GenerationOptions(max_new_tokens=SETTLING + steps + 1)
    writer = TextWriter(generator, prompt, options, time.perf_counter())
    decoder.reset(positions=writer.most_positions)
    writer.write(decoder.step(np.array([prompt], np.int64), greedy=writer.is_greedy))
    model, run, choice = np.empty(steps), np.empty(steps), np.empty(steps)
    seen = np.empty((steps, 3)) if native_head else None
    calls = 0
    positions = np.empty(steps, np.int64)
    with phases.timing() if native_head else nullcontext():
        for step in range(-SETTLING, steps):
            fed = np.array([writer.token_ids[-1:]], np.int64)
            before = phases.times() if native_head else None
            position = decoder.position
            start = time.perf_counter()
            output = decoder.step(fed, greedy=writer.is_greedy)
            middle = time.perf_counter()
            writer.write(output)
            end = time.perf_counter()
            if step < 0:
                continue
            model[step], run[step], choice[step] = middle - start, decoder.run_seconds, end - middle
            positions[step] = position
            if seen is not None and before is not None:
                after_step = phases.times()
                seen[step] = np.subtract(after_step[1:], before[1:])
                calls = after_step[0]
            if after is not None:
                after(step)
    timed = seen * 1e3 if seen is not None and calls else None
    return StepTimes(model * 1e3, run * 1e3, choice * 1e3, timed, positions)
