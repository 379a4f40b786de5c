"""Stage 1 in Triton: scores of all clusters from low-bit centroids, and which clusters are opened.

Parameters stand in the order that :mod:`flashhead_edge.kernels.triton_stage2` explains.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flashhead_edge.kernels.triton_activation import activate

#: Estimates below it are of closed clusters; opened ones are infinite.
_GREATEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def score_clusters(
    states_ptr,
    codes_ptr,
    scales_ptr,
    bias_ptr,
    hidden_size,
    num_clusters,
    num_blocks,
    batch_size,
    products_ptr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCKS: tl.constexpr,
    BITS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """States times centroids in blocks of 32 codes (see ``flashhead_edge.quantize``), plus bias, [B, K].

    Grid (blocks of clusters, blocks of states). A pass of the loop multiplies BLOCKS blocks of BLOCK_K centroids with
    those of BLOCK_B states: codes are whole numbers that every type of states holds exactly, and scales follow. WIDE:
    products of float32, whatever the states' type; Triton's interpreter multiplies no bfloat16.
    """
    BYTES: tl.constexpr = 4 * BITS  # of a block
    kind: tl.constexpr = tl.float32 if WIDE else states_ptr.dtype.element_ty
    cluster = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = cluster < num_clusters
    row_blocks = cluster.to(tl.int64) * num_blocks
    batch = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    known_states = (batch < batch_size)[None, :, None]
    state_ptrs = states_ptr + batch.to(tl.int64)[None, :, None] * hidden_size
    byte = tl.arange(0, BYTES)
    sums = tl.zeros((BLOCKS, BLOCK_B, BLOCK_K), tl.float32)
    for start in range(0, num_blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        known = (block < num_blocks)[:, None, None] & inside[None, None, :]
        places = row_blocks[None, None, :] + block[:, None, None]
        codes = tl.load(codes_ptr + places * BYTES + byte[None, :, None], mask=known, other=0)
        scales = tl.load(scales_ptr + places, mask=known, other=0)
        if BITS == 4:  # two numbers a byte, the lower half first
            column = ((block[:, None] * BYTES + byte[None, :]) * 2)[:, None, :]
            low = tl.load(state_ptrs + column, mask=known_states & (column < hidden_size), other=0)
            high = tl.load(state_ptrs + column + 1, mask=known_states & (column + 1 < hidden_size), other=0)
            lower = ((codes & 15).to(tl.float32) - 8.0).to(kind)
            upper = ((codes >> 4).to(tl.float32) - 8.0).to(kind)
            values = tl.dot(low.to(kind), lower, input_precision="tf32x3")
            values = tl.dot(high.to(kind), upper, values, input_precision="tf32x3")
        else:
            column = (block[:, None] * BYTES + byte[None, :])[:, None, :]
            state = tl.load(state_ptrs + column, mask=known_states & (column < hidden_size), other=0)
            values = tl.dot(state.to(kind), (codes.to(tl.float32) - 128.0).to(kind), input_precision="tf32x3")
        sums += values * scales
    products = tl.sum(sums, axis=0)
    products += tl.load(bias_ptr + cluster, mask=inside, other=0)[None, :]
    target = batch.to(tl.int64)[:, None] * num_clusters + cluster[None, :]
    tl.store(products_ptr + target, products, mask=(batch < batch_size)[:, None] & inside[None, :])


@triton.jit
def _add_counts(first, second, third, more_first, more_second, more_third):
    return first + more_first, second + more_second, third + more_third


@triton.jit
def open_clusters(
    products_ptr,
    selection_offset_ptr,
    estimate_offset_ptr,
    activation_ptr,
    num_clusters,
    num_probes,
    batch_size,
    estimates_ptr,
    BLOCK_K: tl.constexpr,
):
    """Infinity for each state's num_probes best clusters, what is expected of a token for the others, [K, B].

    Grid (B, 1). Scores are compared as integers of the same order. The greatest integer that num_probes scores reach is
    found two bits at a time, by counting how many reach each of three; no bit is left to find where exactly as many as
    are wanted reach it. Among clusters with the lowest score the first ones are opened. BLOCK_K is at least K.
    """
    batch = tl.program_id(0).to(tl.int64)
    cluster = tl.arange(0, BLOCK_K)
    inside = cluster < num_clusters
    products = tl.load(products_ptr + batch * num_clusters + cluster, mask=inside, other=0)
    scores = products + tl.load(selection_offset_ptr + cluster, mask=inside, other=0)
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)  # minus zero is no less than zero
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = tl.where(inside, keys, -(2**31))  # never reach: the least that is asked for is more

    lowest = tl.full((), -(2**31), tl.int32)
    reaching = num_clusters
    shift = 30
    while (shift >= 0) & (reaching != num_probes):
        digit = tl.full((), 1, tl.int32) << shift
        first, second, third = lowest + digit, lowest + 2 * digit, lowest + 3 * digit
        counts = ((keys >= first).to(tl.int32), (keys >= second).to(tl.int32), (keys >= third).to(tl.int32))
        of_first, of_second, of_third = tl.reduce(counts, 0, _add_counts)
        if of_third >= num_probes:
            lowest, reaching = third, of_third
        elif of_second >= num_probes:
            lowest, reaching = second, of_second
        elif of_first >= num_probes:
            lowest, reaching = first, of_first
        shift -= 2
    opened = inside & (keys >= lowest)
    if reaching > num_probes:
        level = inside & (keys == lowest)
        number = tl.cumsum(level.to(tl.int32), axis=0)
        too_many = level & (number > tl.max(number, axis=0) - (reaching - num_probes))
        opened = opened & (too_many == 0)

    expected = products + tl.load(estimate_offset_ptr + cluster, mask=inside, other=0)
    estimates = tl.minimum(activate(expected, activation_ptr), _GREATEST)
    estimates = tl.where(expected == float("-inf"), float("-inf"), estimates)
    estimates = tl.where(opened, float("inf"), estimates)
    tl.store(estimates_ptr + cluster.to(tl.int64) * batch_size + batch, estimates, mask=inside)
