"""Memory over time, seen in a process of its own that opens a bundle and generates."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import ProfileError
from flashhead_edge.memory import peak_rss_bytes
from flashhead_edge.platforms.system_files import read_text
from flashhead_edge.profiling.record import MemorySample
from flashhead_edge.profiling.steps import TimedGenerator, take_steps

_SAMPLES = 16


def memory_over_time(bundle: Path, *, head: str, threads: int, steps: int) -> tuple[int, tuple[MemorySample, ...]]:
    """Open a bundle and generate, in a fresh process.

    Args:
        bundle: The folder.
        head: "two-stage" or "dense".
        threads: Threads of the operators.
        steps: Steps to take.

    Returns:
        The most bytes that were resident, and samples; none where the system does not say what is resident.

    Raises:
        ProfileError: The process ended without an answer.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_generate, args=(bundle, head, threads, steps, send))
    process.start()
    send.close()
    try:
        peak, samples = receive.recv()
    except EOFError as error:
        raise ProfileError(
            "The process whose memory is watched ended early.", hint="see what it wrote above"
        ) from error
    finally:
        process.join()
    return peak, samples


def _generate(bundle: Path, head: str, threads: int, steps: int, send: Connection) -> None:
    """Generate, and send the peak and the samples."""
    start = time.perf_counter()
    samples: list[MemorySample] = []

    def sample(phase: str) -> None:
        resident = _rss_bytes()
        if resident is not None:
            samples.append(MemorySample(time.perf_counter() - start, resident, phase))

    sample("open")
    generator = TimedGenerator(Bundle.open(bundle, verify=False), head=head, threads=threads)
    sample("open")
    every = max(1, steps // _SAMPLES)

    def after(step: int) -> None:
        if step % every == 0:
            sample("decode")

    take_steps(generator, generator.timed_decoder, steps, after=after)
    send.send((peak_rss_bytes(), tuple(samples)))


def _rss_bytes() -> int | None:
    """Bytes resident now: see proc_pid_statm(5)."""
    fields = read_text(Path("/proc/self/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None
