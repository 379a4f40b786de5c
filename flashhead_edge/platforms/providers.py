"""Execution providers of ONNX Runtime that load: each is tried with a small model in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Providers that do nothing on this device: they send models elsewhere, and are not tried.
_REMOTE = {"AzureExecutionProvider": "runs models on a remote service"}
#: TensorRT builds an engine first, and a board may take its time to load CUDA.
_TIMEOUT_S = 180.0
_PATH = re.compile(r"(?<![\w.])/(?:[^\s/:'\"]+/)+")
#: Time, severity and place in ONNX Runtime's source, and the name and number of its error.
_LOG_PREFIX = re.compile(r"^.*?\[[EF]:[^\]]*\]\s*(?:.*\[ONNXRuntimeError\] : \d+ : \w+ : )?")
_LOG_ERROR = re.compile(r"\[[EF]:")


@dataclass(frozen=True)
class ProviderFacts:
    """An execution provider of the installed ONNX Runtime.

    Attributes:
        name: Its ONNX Runtime name, such as "CUDAExecutionProvider".
        loads: Whether it ran a small model; None where it was not tried.
        reason: Why it did not, or was not tried.
    """

    name: str
    loads: bool | None
    reason: str | None = None


def provider_facts() -> tuple[ProviderFacts, ...]:
    """Try every provider that the installed ONNX Runtime lists, most preferred first; empty without one."""
    listed = _run_probe("--list").report
    if not isinstance(listed, list):
        return ()
    return tuple(try_provider(name) for name in listed)


def try_provider(name: str) -> ProviderFacts:
    """Run a small model on a provider.

    Args:
        name: Its ONNX Runtime name.
    """
    if name in _REMOTE:
        return ProviderFacts(name, None, _REMOTE[name])
    outcome = _run_probe(name)
    if not isinstance(outcome.report, dict):
        return ProviderFacts(name, False, outcome.failure)
    if outcome.report["loads"]:
        return ProviderFacts(name, True)
    return ProviderFacts(name, False, without_folders(outcome.failure or outcome.report["reason"]))


@dataclass(frozen=True)
class _Outcome:
    """What a probe process left: its report, and what it or its end says of a failure."""

    report: Any
    failure: str | None


def _run_probe(argument: str) -> _Outcome:
    """Run :mod:`~flashhead_edge.platforms.provider_probe`."""
    package_parent = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flashhead_edge.platforms.provider_probe", argument],
            env=os.environ | {"PYTHONPATH": search_path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Outcome(None, f"it did not answer within {_TIMEOUT_S:.0f} s")
    logged = next((line for line in done.stderr.splitlines() if _LOG_ERROR.search(line)), None)
    failure = _LOG_PREFIX.sub("", logged) if logged else None
    if done.returncode != 0:
        return _Outcome(None, without_folders(failure or _end_of(done)))
    return _Outcome(json.loads(done.stdout.splitlines()[-1]), failure)


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended that left no report."""
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with status {done.returncode}"


def without_folders(text: str) -> str:
    """A message with file names in place of whole paths, which can name a home."""
    return _PATH.sub("", text)
