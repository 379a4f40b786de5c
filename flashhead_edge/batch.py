"""Many texts at once: steps are shared, and a text takes the place of one that has ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flashhead_edge.text_writer import TextWriter

if TYPE_CHECKING:
    from flashhead_edge.generation import Generation, GenerationOptions
    from flashhead_edge.generator import Generator


def generate_batch(
    generator: Generator, prompts: Sequence[Sequence[int]], options: GenerationOptions, *, rows: int
) -> list[Generation]:
    """Generate texts side by side.

    A prompt is read as soon as there is room for it, while the others wait for one step; with a seed each text draws
    what it would draw alone.

    Args:
        generator: The model.
        prompts: Token ids of the prompts.
        options: How far to generate, and how to choose, for all of them.
        rows: Texts side by side at most.

    Returns:
        The generations, in the order of the prompts. Ctrl-C ends all with what there is.
    """
    start = time.perf_counter()
    writers = [TextWriter(generator, prompt, options, start) for prompt in prompts]
    rows = min(rows, len(writers))
    decoder = generator.decoder.for_batch(rows=rows, positions=max(writer.most_positions for writer in writers))
    waiting = deque(writers)
    active: list[TextWriter] = []
    try:
        while waiting or active:
            while waiting and len(active) < rows:
                writer = waiting.popleft()
                began = time.perf_counter()
                output = decoder.read(len(active), writer.prompt_ids, greedy=writer.is_greedy)
                generator.recorder.ran(began, fed=len(writer.prompt_ids), is_prompt=True)
                writer.write(output)
                if not writer.finished:
                    active.append(writer)
            if not active:
                continue
            began = time.perf_counter()
            output = decoder.step([writer.token_ids[-1] for writer in active], greedy=active[0].is_greedy)
            generator.recorder.ran(began, fed=len(active), is_prompt=False)
            for row, writer in enumerate(active):
                writer.write(output, row)
            kept = [row for row, writer in enumerate(active) if not writer.finished]
            if len(kept) < len(active):
                decoder.keep(kept)
                active = [active[row] for row in kept]
    except KeyboardInterrupt:
        pass  # the finish reasons say so
    for writer in writers:
        writer.settle()
    return [writer.result for writer in writers]
