"""Stage 1 in Triton: scores of all clusters from low-bit centroids.

Parameters stand in the order that :mod:`flashhead_edge.kernels.triton_stage2` explains.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def score_clusters(
    states_ptr,
    codes_ptr,
    scales_ptr,
    bias_ptr,
    hidden_size,
    num_clusters,
    num_blocks,
    products_ptr,
    BLOCK_K: tl.constexpr,
    BLOCKS: tl.constexpr,
    BITS: tl.constexpr,
):
    """Stage 1: states times centroids in blocks of 32 codes (see ``flashhead_edge.quantize``), plus bias, [B, K].

    Grid (B, blocks of clusters): programs that read the same centroids run side by side. A pass of the loop covers
    BLOCKS blocks of each of BLOCK_K centroids.
    """
    BYTES: tl.constexpr = 4 * BITS  # of a block
    batch = tl.program_id(0)
    cluster = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (cluster < num_clusters)[:, None, None]
    row_blocks = cluster.to(tl.int64)[:, None, None] * num_blocks
    state_ptr = states_ptr + batch * hidden_size
    byte = tl.arange(0, BYTES)[None, None, :]
    sums = tl.zeros((BLOCK_K, BLOCKS, BYTES), tl.float32)
    for start in range(0, num_blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)[None, :, None]
        known = inside & (block < num_blocks)
        codes = tl.load(codes_ptr + (row_blocks + block) * BYTES + byte, mask=known, other=0)
        scales = tl.load(scales_ptr + row_blocks + block, mask=known, other=0)
        if BITS == 4:  # two numbers a byte, the lower half first
            column = (block * BYTES + byte) * 2
            low = tl.load(state_ptr + column, mask=column < hidden_size, other=0).to(tl.float32)
            high = tl.load(state_ptr + column + 1, mask=column + 1 < hidden_size, other=0).to(tl.float32)
            values = ((codes & 15).to(tl.float32) - 8.0) * low + ((codes >> 4).to(tl.float32) - 8.0) * high
        else:
            column = block * BYTES + byte
            state = tl.load(state_ptr + column, mask=column < hidden_size, other=0).to(tl.float32)
            values = (codes.to(tl.float32) - 128.0) * state
        sums += values * scales
    products = tl.sum(tl.sum(sums, axis=2), axis=1)
    products += tl.load(bias_ptr + cluster, mask=cluster < num_clusters, other=0)
    tl.store(products_ptr + batch * num_clusters + cluster, products, mask=cluster < num_clusters)
