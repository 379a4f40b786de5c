"""Engines of vLLM in other processes: jobs for ``engine_process.py``, and what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESS = Path(__file__).with_name("engine_process.py")
#: vLLM's caches, kept between runs and apart from the user's.
CACHE = Path(__file__).resolve().parents[2] / "work" / "vllm-cache"
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CACHE_ROOT": str(CACHE),
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "INFO",
    "TOKENIZERS_PARALLELISM": "false",
}
OPTIONS = {"enforce_eager": True, "max_model_len": 128, "max_num_seqs": 8, "disable_log_stats": False}


@dataclass(frozen=True)
class Run:
    """What a process reported, by engine, and what it logged."""

    engines: dict[str, Any]
    log: str

    def outputs(self, engine: str) -> dict[str, Any]:
        """Outputs by case; the process's log is shown if the engine did not run."""
        report = self.engines.get(engine, {"error": "the process ended before"})
        assert "error" not in report, f"{engine}: {report['error']}\n{self.log[-6000:]}"
        return report["outputs"]

    def said(self, text: str) -> int:
        """How many lines of the log hold a text."""
        return sum(text in line for line in self.log.splitlines())


def engine(name: str, model: Path, cases: dict[str, Any], env: dict[str, str] | None = None, **options: Any) -> Any:
    """One engine of a job; ``options`` are those of ``vllm.LLM``."""
    return {
        "name": name,
        "model": str(model),
        "cases": cases,
        "env": env or {},
        "options": OPTIONS | options,
        "speculates": "speculative_config" in options,
    }


def run(folder: Path, *engines: Any, env: dict[str, str] | None = None, timeout: float = 900) -> Run:
    """Run engines one after the other in a process of their own.

    Args:
        folder: For the job, the report and the log.
        engines: What :func:`engine` gave.
        env: More environment.
        timeout: Seconds.
    """
    job, report, log = folder / "job.json", folder / "report.json", folder / "log.txt"
    job.write_text(json.dumps(engines))
    with log.open("w") as stream:
        subprocess.run(
            [sys.executable, str(PROCESS), str(job), str(report)],
            env=os.environ | ENVIRONMENT | (env or {}),
            stdout=stream,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    return Run(json.loads(report.read_text()) if report.is_file() else {}, log.read_text(errors="replace"))
