"""What TensorRT's log says of a build."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flashhead_edge.runtimes.tensorrt.engine_build import OPENED_LAYERS

#: "Max" in TensorRT for RTX and 10, "Total" in 8.
_SCRATCH = re.compile(r"(?:Max|Total) Scratch Memory: (\d+)(?: bytes)?")
_NODE = re.compile(r"Parsing node: ")
#: Layers that TensorRT for RTX lists; those of shapes compute nothing.
_LAYER = re.compile(r"^\s*Name: [^,]*, LayerType: (?!shape_call)", re.MULTILINE)
_OPENED = re.compile(rf"{re.escape(OPENED_LAYERS)} (\d+)")
_ERROR = re.compile(r"^\[E\]|^\[!\]|Error Code|Error:", re.IGNORECASE)


@dataclass(frozen=True)
class BuildLog:
    """Facts of a build; None for what the log does not say.

    Attributes:
        text: The log.
        scratch_bytes: Memory beside weights, inputs and outputs that a step needs.
        graph_nodes: Nodes of the graph that were read.
        engine_layers: Layers of the engine, which are kernels or calls of libraries.
    """

    text: str
    scratch_bytes: int | None
    graph_nodes: int | None
    engine_layers: int | None

    @classmethod
    def of(cls, text: str) -> BuildLog:
        """Read a log.

        Args:
            text: All of it.
        """
        opened = _OPENED.search(text)
        layers = int(opened[1]) if opened else len(_LAYER.findall(text)) or None
        scratch = max((int(number) for number in _SCRATCH.findall(text)), default=None)
        return cls(text, scratch, len(_NODE.findall(text)) or None, layers)

    @property
    def layers_fused(self) -> int | None:
        """Nodes of the graph that are no layer of their own in the engine."""
        if self.graph_nodes is None or self.engine_layers is None:
            return None
        return self.graph_nodes - self.engine_layers

    def errors(self, limit: int = 3) -> list[str]:
        """The last lines that tell of errors, or of anything where none does.

        Args:
            limit: How many.
        """
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return ([line for line in lines if _ERROR.search(line)] or lines)[-limit:]
