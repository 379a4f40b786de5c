"""Timed steps: what is timed lies within what contains it, and the text is the generator's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from flashhead_edge import Bundle, native
from flashhead_edge.bench.turns import PROMPT_LENGTH
from flashhead_edge.profiling.steps import SETTLING, StepTimes, TimedGenerator, positions_of, take_steps


@pytest.mark.parametrize("head", ["two-stage", "dense"])
def test_times_lie_within_each_other(whole_bundle: Callable[..., Bundle], head: str) -> None:
    generator = TimedGenerator(whole_bundle(), head=head, threads=1)
    assert generator.decoder is generator.timed_decoder
    has_phases = head == "two-stage" and native.is_available()
    seen: list[int] = []
    times = take_steps(generator, generator.timed_decoder, 12, native_head=has_phases, after=seen.append)
    assert seen == list(range(12))
    assert times.positions.tolist() == list(range(PROMPT_LENGTH + SETTLING, PROMPT_LENGTH + SETTLING + 12))
    assert times.positions[-1] < positions_of(12)
    assert np.all(times.run > 0)
    assert np.all(times.run < times.model)
    assert np.all(times.choice > 0)
    np.testing.assert_allclose(times.step, times.model + times.choice)
    if has_phases:
        assert times.phases is not None
        assert np.all(times.phases > 0)
        assert np.all(times.phases.sum(axis=1) < times.run)
    joined = StepTimes.joined([times, times])
    assert len(joined.step) == 24
    assert (joined.phases is None) == (not has_phases)
