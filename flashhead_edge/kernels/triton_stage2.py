"""Stage 2 in Triton: exact logits of the opened clusters as lists of candidates.

Parameters are the inputs' pointers, then integers, then the outputs' pointers, then compile-time constants: the order
that TensorRT gives a plugin's kernel. It has no floating-point parameters to give, so scale and soft-cap are read from
``activation``, [3] float32: factor on the logits, soft-cap (0 for none), and the relative step by which estimates stay
below the best logit.

A *key* is an int64 that orders candidates by logit and, among equal ones, by descending id: in its upper half the
logit's bits as an integer of the same order, in its lower half ``2**31 - 1 - id``. The greatest of all keys is the
greedy token, in whatever order they are compared.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flashhead_edge.kernels.triton_activation import activate

#: Key of an empty slot, below every other.
NO_KEY = tl.constexpr(-(2**63))


@triton.jit
def _key(logits, ids):
    """Pack; empty slots have id -1."""
    bits = tl.where(logits == 0, 0.0, logits).to(tl.int32, bitcast=True)  # minus zero is no less than zero
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    return tl.where(ids < 0, NO_KEY, (ordered << 32) | (0x7FFFFFFF - ids.to(tl.int64)))


@triton.jit
def score_candidates(
    states_ptr,
    probes_ptr,
    rows_ptr,
    row_scales_ptr,
    row_bias_ptr,
    token_order_ptr,
    activation_ptr,
    hidden_size,
    cluster_size,
    num_probes,
    num_clusters,
    num_opened,
    has_bias,
    candidate_ids_ptr,
    candidate_logits_ptr,
    best_keys_ptr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BY_TOKEN: tl.constexpr,
):
    """Ids and logits [B, M], and the best key of every block of BLOCK_C candidates, [B, blocks]; grid (blocks, B).

    The clusters of always-scored tokens follow the K others in the table, and the probes among those opened.
    """
    batch = tl.program_id(1)
    candidates = num_opened * cluster_size
    place = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = place < candidates
    opened = place // cluster_size
    probed = inside & (opened < num_probes)
    probe = tl.load(probes_ptr + batch * num_probes + opened, mask=probed, other=0).to(tl.int64)
    cluster = tl.where(probed, probe, (opened - num_probes + num_clusters).to(tl.int64))
    slot = cluster * cluster_size + place % cluster_size
    ids = tl.load(token_order_ptr + slot, mask=inside, other=-1)
    filled = ids >= 0
    row = tl.where(filled, ids.to(tl.int64) if BY_TOKEN else slot, 0)

    sums = tl.zeros((BLOCK_C, BLOCK_H), tl.float32)
    row_starts = row[:, None] * hidden_size
    for start in range(0, hidden_size, BLOCK_H):
        column = start + tl.arange(0, BLOCK_H)
        known = column < hidden_size
        state = tl.load(states_ptr + batch * hidden_size + column, mask=known, other=0).to(tl.float32)
        weights = tl.load(rows_ptr + row_starts + column[None, :], mask=filled[:, None] & known[None, :], other=0)
        sums += weights.to(tl.float32) * state[None, :]
    products = tl.sum(sums, axis=1)

    if rows_ptr.dtype.element_ty == tl.int8:
        products *= tl.load(row_scales_ptr + row, mask=filled, other=0)
    products += tl.load(row_bias_ptr + row, mask=(ids >= 0) & (tl.full((BLOCK_C,), 0, tl.int32) < has_bias), other=0)
    logits = tl.where(filled, activate(products, activation_ptr), float("-inf"))

    target = batch * candidates + place
    tl.store(candidate_ids_ptr + target, ids.to(tl.int64), mask=inside)
    tl.store(candidate_logits_ptr + target, logits, mask=inside)
    tl.store(best_keys_ptr + batch * tl.num_programs(0) + tl.program_id(0), tl.max(_key(logits, ids), axis=0))


@triton.jit
def best_tokens(best_keys_ptr, num_keys, token_ids_ptr, BLOCK_N: tl.constexpr):
    """Greedy tokens [B] from the best keys of all blocks, [B, num_keys]; grid (B, 1)."""
    batch = tl.program_id(0)
    highest = tl.full((BLOCK_N,), NO_KEY, tl.int64)
    for start in range(0, num_keys, BLOCK_N):
        block = start + tl.arange(0, BLOCK_N)
        keys = tl.load(best_keys_ptr + batch * num_keys + block, mask=block < num_keys, other=NO_KEY)
        highest = tl.maximum(highest, keys)
    tl.store(token_ids_ptr + batch, 0x7FFFFFFF - (tl.max(highest, axis=0) & 0xFFFFFFFF))
