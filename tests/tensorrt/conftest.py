"""TensorRT for RTX as a builder. Nothing runs here: it builds ahead of time, without a GPU or a driver.

What a build shows: operators and types are accepted for a GPU, and how much scratch memory the plan asks for, which is
where a copy of the opened rows, or of dequantized centroids, would be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.manifest import BatchProfile


@dataclass(frozen=True)
class Built:
    """Size of the plan, or None; the greatest scratch memory, in bytes; what was said."""

    plan: int | None
    scratch: int
    said: str


class Builder:
    """Builds graphs; keeps one logger, as a process may have one only."""

    def __init__(self, rtx: Any) -> None:
        class Logger(rtx.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                rtx.ILogger.__init__(self)
                self.lines: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                del severity
                self.lines.append(message)

        self._rtx = rtx
        self._logger = Logger()

    def __call__(self, graph: Path, target: str, batch: BatchProfile) -> Built:
        rtx, logger = self._rtx, self._logger
        logger.lines.clear()
        builder = rtx.Builder(logger)
        network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = rtx.OnnxParser(network, logger)
        if not parser.parse_from_file(str(graph)):
            return Built(None, 0, "\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(rtx.ComputeCapability, target), 0)
        profile = builder.create_optimization_profile()
        width = network.get_input(0).shape[1]
        profile.set_shape("hidden_states", *((size, width) for size in (batch.least, batch.tuned, batch.most)))
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        said = "\n".join(logger.lines)
        if plan is None:
            return Built(None, 0, said)
        scratch = [int(number) for number in re.findall(r"Max Scratch Memory: (\d+) bytes", said)]
        assert scratch, "the log does not say how much scratch memory is needed"
        return Built(plan.nbytes, max(scratch), said)


@pytest.fixture(scope="session")
def build() -> Builder:
    return Builder(pytest.importorskip("tensorrt_rtx", reason="make test-tensorrt installs it"))
