"""The vocabulary rows of a head as they lie in a data file, and how graphs of standard operators read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from flashhead_edge import layout
from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.tensor_ref import TensorRef
from flashhead_edge.quantize import BLOCK_SIZE
from flashhead_edge.row_table import RowTable

_INT8 = 3  # TensorProto.DataType
#: Begins the names of the nodes that :meth:`StoredRows.add_to` adds; they depend on nothing but the table.
JOINED_ROWS = "/rows/"


@dataclass(frozen=True)
class StoredRows:
    """Where the tensors of a :class:`RowTable` lie.

    Attributes:
        data: ``head.rows`` [T, C, H] float16 or float32; or of int8 rows ``head.high_nibbles`` [T, C, H / 32, 16]
            uint8.
        low: ``head.low_nibbles`` [T, C, H / 32, 16] uint8 of int8 rows, or None.
        scales: ``head.row_scales`` [T, C, H / 32] float16 of int8 rows, or None.
    """

    data: TensorRef
    low: TensorRef | None = None
    scales: TensorRef | None = None

    @classmethod
    def among(cls, refs: Mapping[str, TensorRef]) -> StoredRows:
        """Find the rows of a head among the tensors of a graph or a bundle, by name."""
        return cls(*(refs[name] for name in layout.row_tables(refs)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, C and H."""
        return self.data.shape[0], self.data.shape[1], self.width

    @property
    def width(self) -> int:
        """H, of a table by token too."""
        return self.data.shape[-1] if self.low is None else self.data.shape[-2] * BLOCK_SIZE

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """All there are."""
        return tuple(ref for ref in (self.data, self.low, self.scales) if ref is not None)

    def read(self, folder: Path) -> RowTable:
        """Map the table; ``folder`` is that of the graph."""
        return RowTable(*(cast(Any, ref.read(folder)) for ref in self.refs))

    def add_to(self, graph: GraphBuilder) -> str:
        """Add the rows as one tensor [T, C, H] of floats or int8 codes; returns its name.

        Codes are put together of their nibbles by nodes that depend on the table alone: runtimes compute them once,
        when they open the graph, and keep the result.
        """
        if self.low is None:
            graph.external(self.data)
            return self.data.name
        codes = join_nibbles(graph, self.data, self.low, JOINED_ROWS)
        middle = graph.constant(f"{JOINED_ROWS}middle", np.array(128, np.uint8))
        codes = graph.node("BitwiseXor", [codes, middle], f"{JOINED_ROWS}BitwiseXor")
        shape = graph.constant(f"{JOINED_ROWS}table", np.array(self.shape, np.int64))
        codes = graph.node("Reshape", [codes, shape], f"{JOINED_ROWS}Reshape")
        return graph.node("Cast", [codes], f"{JOINED_ROWS}Cast", to=_INT8)


def join_nibbles(graph: GraphBuilder, high: TensorRef, low: TensorRef, place: str) -> str:
    """Add int8 codes plus 128, [..., blocks, 32] uint8, of their halves [..., blocks, 16]; returns their name.

    Args:
        graph: The graph.
        high: The high nibbles, as :func:`flashhead_edge.quantize.split_nibbles` makes them.
        low: The low ones.
        place: Beginning of the nodes' names.
    """
    graph.external(high)
    graph.external(low)

    def number(name: str, value: int) -> str:
        return graph.constant(f"{place}{name}", np.array(value, np.uint8))

    four, lower, upper = number("four", 4), number("lower", 15), number("upper", 240)
    # What a shift would push out is taken away before: OpenVINO's saturates.
    first = graph.node("BitwiseAnd", [high.name, lower], f"{place}first/high/BitwiseAnd")
    first = graph.node("BitShift", [first, four], f"{place}first/BitShift", direction="LEFT")
    first_low = graph.node("BitwiseAnd", [low.name, lower], f"{place}first/BitwiseAnd")
    first = graph.node("BitwiseOr", [first, first_low], f"{place}first/BitwiseOr")
    last_low = graph.node("BitShift", [low.name, four], f"{place}last/BitShift", direction="RIGHT")
    last = graph.node("BitwiseAnd", [high.name, upper], f"{place}last/BitwiseAnd")
    last = graph.node("BitwiseOr", [last, last_low], f"{place}last/BitwiseOr")
    return graph.node("Concat", [first, last], f"{place}Concat", axis=-1)
