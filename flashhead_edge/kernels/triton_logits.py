"""Full-width logits in Triton: exact ones of the opened clusters' tokens, estimates of all others.

Parameters stand in the order that :mod:`flashhead_edge.kernels.triton_stage2` explains.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flashhead_edge.kernels.triton_activation import activate


@triton.jit
def score_opened(
    states_ptr,
    estimates_ptr,
    rows_ptr,
    row_scales_ptr,
    row_bias_ptr,
    token_order_ptr,
    activation_ptr,
    hidden_size,
    cluster_size,
    num_clusters,
    batch_size,
    has_bias,
    exact_ptr,
    best_logits_ptr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BY_TOKEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Logits of the tokens of opened clusters into their places of [T * C, B], and each state's best, [B].

    Grid (T * blocks of a cluster, blocks of states): a cluster's rows are read once for all states of a block that open
    it, and not at all where none does. A state's logits do not depend on the others. ``best_logits`` begins with -inf.
    WIDE: products of float32, whatever the types; Triton's interpreter multiplies no bfloat16.
    The clusters of always-scored tokens follow the K others in the table.
    """
    has_codes: tl.constexpr = rows_ptr.dtype.element_ty == tl.int8  # every type of states holds them exactly
    is_same: tl.constexpr = has_codes or rows_ptr.dtype.element_ty == states_ptr.dtype.element_ty
    kind: tl.constexpr = states_ptr.dtype.element_ty if is_same and not WIDE else tl.float32
    parts = tl.cdiv(cluster_size, BLOCK_C)
    cluster = tl.program_id(0) // parts
    batch = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    known = batch < batch_size
    has_centroid = tl.full((BLOCK_B,), 0, tl.int32) + cluster < num_clusters
    estimate_ptrs = estimates_ptr + cluster.to(tl.int64) * batch_size + batch
    estimates = tl.load(estimate_ptrs, mask=known & has_centroid, other=float("inf"))
    opened = known & (estimates == float("inf"))
    if tl.max(opened.to(tl.int32), axis=0) > 0:
        member = (tl.program_id(0) % parts) * BLOCK_C + tl.arange(0, BLOCK_C)
        slot = cluster.to(tl.int64) * cluster_size + member
        ids = tl.load(token_order_ptr + slot, mask=member < cluster_size, other=-1)
        filled = ids >= 0
        row = tl.where(filled, ids.to(tl.int64) if BY_TOKEN else slot, 0)
        products = tl.zeros((BLOCK_B, BLOCK_C), tl.float32)
        state_ptrs = states_ptr + batch.to(tl.int64)[:, None] * hidden_size
        row_ptrs = rows_ptr + row[None, :] * hidden_size
        for start in range(0, hidden_size, BLOCK_H):
            column = start + tl.arange(0, BLOCK_H)
            inside = column < hidden_size
            states = tl.load(state_ptrs + column[None, :], mask=opened[:, None] & inside[None, :], other=0)
            rows = tl.load(row_ptrs + column[:, None], mask=filled[None, :] & inside[:, None], other=0)
            products = tl.dot(states.to(kind), rows.to(kind), products, input_precision="tf32x3")
        if has_codes:
            products *= tl.load(row_scales_ptr + row, mask=filled, other=0)[None, :]
        is_biased = filled & (tl.full((BLOCK_C,), 0, tl.int32) < has_bias)
        products += tl.load(row_bias_ptr + row, mask=is_biased, other=0)[None, :]
        logits = activate(products, activation_ptr)
        targets = slot[None, :] * batch_size + batch[:, None]
        written = opened[:, None] & filled[None, :]
        tl.store(exact_ptr + targets, logits.to(exact_ptr.dtype.element_ty), mask=written)
        best = tl.max(tl.where(written, logits, float("-inf")), axis=1)
        tl.atomic_max(best_logits_ptr + batch, best, mask=opened, sem="relaxed")


@triton.jit
def spread_logits(
    exact_ptr,
    best_logits_ptr,
    estimates_ptr,
    slot_of_token_ptr,
    activation_ptr,
    cluster_size,
    num_clusters,
    batch_size,
    width,
    logits_ptr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """All columns of [B, width]: exact logits where clusters are open, elsewhere estimates below the best logit [B].

    Grid (blocks of columns, blocks of states). Columns come in the vocabulary's order, so that writes are contiguous;
    what is read of a token or a cluster for the states of a block lies together.
    """
    batch = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    known = batch < batch_size
    best = tl.load(best_logits_ptr + batch, mask=known, other=0)
    ceiling = best - tl.maximum(tl.abs(best), 1.0) * tl.load(activation_ptr + 2)
    token = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = token < width
    slot = tl.load(slot_of_token_ptr + token, mask=inside, other=-1)
    is_token = slot >= 0
    cluster = slot // cluster_size
    estimates = tl.load(
        estimates_ptr + cluster.to(tl.int64)[:, None] * batch_size + batch[None, :],
        mask=(is_token & (cluster < num_clusters))[:, None] & known[None, :],
        other=float("inf"),
    )
    opened = is_token[:, None] & (estimates == float("inf"))
    exact = tl.load(
        exact_ptr + slot.to(tl.int64)[:, None] * batch_size + batch[None, :], mask=opened & known[None, :], other=0
    )
    values = tl.minimum(estimates, ceiling[None, :]).to(exact.dtype)
    values = tl.where(opened, exact, tl.where(is_token[:, None], values, float("-inf")))
    targets = batch.to(tl.int64)[None, :] * width + token[:, None]
    tl.store(logits_ptr + tl.trans(targets), tl.trans(values), mask=tl.trans(inside[:, None] & known[None, :]))
