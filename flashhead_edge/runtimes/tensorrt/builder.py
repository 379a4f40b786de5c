"""Builds an engine in a child process, so that a build which is killed ends in a message, and keeps it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flashhead_edge.bundle import hash_file
from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.tensorrt.build_log import BuildLog
from flashhead_edge.runtimes.tensorrt.engine_build import EngineRequest
from flashhead_edge.runtimes.tensorrt.engine_cache import EngineCache, EngineRecord
from flashhead_edge.runtimes.tensorrt.planning import BuildPlan
from flashhead_edge.runtimes.tensorrt.preflight import MEMORY_ADVICE, check_memory, check_room

_CHILD = (sys.executable, "-m", "flashhead_edge.runtimes.tensorrt.engine_build")
_WAIT_SECONDS = 3600.0
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


@dataclass(frozen=True)
class BuiltEngine:
    """An engine in the cache.

    Attributes:
        path: Its file.
        record: What is known of it.
        built_because: Why it was built just now; None where it was there.
    """

    path: Path
    record: EngineRecord
    built_because: str | None


def _say_nothing(message: str) -> None:
    del message


def build_engine(
    plan: BuildPlan,
    *,
    rebuild: bool = False,
    check_free_memory: bool = True,
    wait_seconds: float = _WAIT_SECONDS,
    say: Callable[[str], None] = _say_nothing,
    log_file: Path | None = None,
    child: tuple[str, ...] = _CHILD,
) -> BuiltEngine:
    """Build an engine, or take the one of the same key that is there.

    Args:
        plan: What to build and where it is kept.
        rebuild: Build it even if it is there.
        check_free_memory: Refuse to begin where free memory is below the estimate.
        wait_seconds: How long to wait for another process that builds the same.
        say: Told in a line what happens.
        log_file: Where TensorRT's log goes, also that of a build which fails; None to keep none.
        child: Command that builds, given the request's file, the engine's, and our process id.

    Returns:
        The engine.

    Raises:
        EngineError: Memory or the disk does not suffice, the child failed or was killed, or nothing can be written.
    """
    cache = EngineCache(plan.folder)
    found = None if rebuild else cache.find(plan.key)
    if found is not None:
        return BuiltEngine(cache.path(plan.key), found, None)

    def waiting() -> None:
        say("another process builds this engine; waiting for it")

    with cache.building(plan.key, wait_seconds, waiting) as scratch:
        found = None if rebuild else cache.find(plan.key)  # another process may have built it meanwhile
        if found is not None:
            return BuiltEngine(cache.path(plan.key), found, None)
        reason = "it was asked for" if rebuild else cache.why_build(plan.key)
        say(f"building, because {reason}")
        check_room(plan.folder, plan.weights_bytes)
        if check_free_memory:
            check_memory(plan.memory_estimate)
        try:
            return _build(plan, cache, scratch, reason, log_file, child)
        except OSError as error:
            raise EngineError(
                f"Writing the engine to {plan.folder} failed; nothing was left behind.",
                found=f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else ""),
                hint="make room on the disk, or name another folder with --cache-dir",
            ) from error


def _build(
    plan: BuildPlan, cache: EngineCache, scratch: Path, reason: str, log_file: Path | None, child: tuple[str, ...]
) -> BuiltEngine:
    """Build in ``scratch``, and move engine and timing cache into place."""
    kept_times, times, engine = cache.timing_cache(plan.key), scratch / "timing.cache", scratch / "engine"
    if kept_times is not None and kept_times.is_file():
        shutil.copyfile(kept_times, times)
    start = time.perf_counter()
    request = dataclasses.replace(plan.request, timing_cache=None if kept_times is None else str(times))
    log = run_child(request, engine, log_file=log_file, child=child)
    record = EngineRecord(
        key=plan.key,
        platform=plan.platform,
        bytes=engine.stat().st_size,
        sha256=hash_file(engine).sha256,
        seconds=time.perf_counter() - start,
        scratch_bytes=log.scratch_bytes,
        graph_nodes=log.graph_nodes,
        engine_layers=log.engine_layers,
        built_on=plan.built_on,
    )
    if kept_times is not None and times.is_file():
        times.replace(kept_times)
    return BuiltEngine(cache.add(engine, record), record, reason)


def run_child(
    request: EngineRequest, engine: Path, *, log_file: Path | None = None, child: tuple[str, ...] = _CHILD
) -> BuildLog:
    """Build in a child process, which ends when this one does.

    Args:
        request: What to build.
        engine: File to write; what lies beside it is left alone.
        log_file: Where the log goes; None to keep none.
        child: Command that builds, given the request's file, the engine's, and our process id.

    Returns:
        What the log says.

    Raises:
        EngineError: The child failed or was killed.
        OSError: The disk is full or not writable.
    """
    with tempfile.TemporaryDirectory(dir=engine.parent, prefix=".build-") as folder:
        asked = Path(folder) / "request.json"
        asked.write_text(request.to_json(), encoding="utf-8")
        done = subprocess.run(
            [*child, str(asked), str(engine), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    log = BuildLog.of(done.stdout)
    if log_file is not None:
        log_file.write_text(log.text, encoding="utf-8")
    if done.returncode:
        raise _failure(request, done.returncode, log)
    return log


def _failure(request: EngineRequest, status: int, log: BuildLog) -> EngineError:
    """Say in words how a child failed, and what to do."""
    memory_ran_out = re.search(r"out of memory|OutOfMemory|bad_alloc|MemoryError|Cannot allocate memory", log.text)
    if status in _KILLED or memory_ran_out:
        return EngineError(
            "The engine's build was ended, most likely because memory ran out.",
            found="the build was killed" if status in _KILLED else " | ".join(log.errors()),
            expected="a build that ends",
            hint=f"{MEMORY_ADVICE}; `dmesg` shows whether the system killed it",
        )
    hint = "with a bug report, send what --log FILE keeps and what `flashhead-edge doctor --json` prints"
    if "No space left on device" in log.text:
        hint = "make room on the disk, or name another folder with --cache-dir"
    elif re.search(r"HW-specific datatypes|not supported by this TensorRT-RTX version", log.text):
        hint = "the GPU lacks a type of this graph, or TensorRT does not know the GPU: see docs/tensorrt.md"
    elif re.search(r"insufficient workspace|could not find any implementation", log.text, re.IGNORECASE):
        hint = "raise --workspace, or lower --batch"
    return EngineError(
        f"{request.backend} could not build the engine for compute capability {request.compute_capability}.",
        found=" | ".join(log.errors()) or f"exit status {status}",
        hint=hint,
    )
