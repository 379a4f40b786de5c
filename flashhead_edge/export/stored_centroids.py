"""The centroids of a head as they lie in a data file, and how graphs of standard operators score them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.quantize import high_nibbles, quantize_rows

_CODES, _SCALES, _HIGH = "head.centroids", "head.centroid_scales", "head.centroid_high"
_FLOAT_BITS = 32


@dataclass(frozen=True)
class StoredCentroids:
    """Where the tensors of stage 1 lie; H is r, and centroids are narrow, where a projection comes before.

    Attributes:
        data: [H, K] float32, or codes [K, blocks, 16 or 32] uint8, as ``MatMulNBits`` has them.
        scales: Of codes, [K, blocks] float16, or None.
        high: Of int8 codes the high nibbles once more, [K, blocks, 16] uint8, from which the native library's greedy
            steps estimate; or None. As halves alone, OpenVINO would not take the codes.
    """

    data: TensorRef
    scales: TensorRef | None = None
    high: TensorRef | None = None

    @classmethod
    def write(cls, data: DataFile, centroids: npt.NDArray[np.float32], bits: int) -> StoredCentroids:
        """Write centroids.

        Args:
            data: The file to append to.
            centroids: [K, H] float32.
            bits: 4, 8, or 32 for float32.
        """
        if bits == _FLOAT_BITS:
            return cls(data.append(_CODES, np.ascontiguousarray(centroids.T)))
        quantized = quantize_rows(centroids, bits)
        codes, scales = data.append(_CODES, quantized.codes), data.append(_SCALES, quantized.scales)
        return cls(codes, scales, data.append(_HIGH, high_nibbles(quantized)) if bits == 8 else None)

    @classmethod
    def among(cls, refs: Mapping[str, TensorRef]) -> StoredCentroids:
        """Find the centroids among the tensors of a graph, by name."""
        return cls(refs[_CODES], refs.get(_SCALES), refs.get(_HIGH))

    def add_products(self, graph: GraphBuilder, state: str, name: str, *, width: int) -> str:
        """Add the products of states with all centroids.

        Args:
            graph: The graph.
            state: Name of the states, [B, H] float32.
            name: Name of the node.
            width: H.

        Returns:
            Name of the products, [B, K] float32.
        """
        if self.scales is None:
            graph.external(self.data)
            return graph.node("MatMul", [state, self.data.name], name)
        bits = self.data.shape[2] // 4
        return graph.quantized_product(state, self.data, self.scales, name, bits=bits, width=width)
