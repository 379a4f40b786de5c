"""Stage 2 in Triton: exact logits of the opened clusters, as lists of candidates or in full-width logits.

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

#: Key of an empty slot, below every other.
NO_KEY = tl.constexpr(-(2**63))


@triton.jit
def _activate(products, activation_ptr):
    """Scale and soft-cap."""
    logits = products * tl.load(activation_ptr)
    softcap = tl.load(activation_ptr + 1)
    divisor = tl.where(softcap > 0, softcap, 1.0)
    decay = tl.exp(-2.0 * tl.abs(logits / divisor))  # tanh, from the exponential that cannot overflow
    magnitude = softcap * ((1.0 - decay) / (1.0 + decay))
    return tl.where(softcap > 0, tl.where(logits < 0, -magnitude, magnitude), logits)


@triton.jit
def _key(logits, ids):
    """Pack; empty slots have id -1."""
    bits = tl.where(logits == 0, 0.0, logits).to(tl.int32, bitcast=True)  # minus zero is no less than zero
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    return tl.where(ids < 0, NO_KEY, (ordered << 32) | (0x7FFFFFFF - ids.to(tl.int64)))


@triton.jit
def _opened_block(
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
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BY_TOKEN: tl.constexpr,
):
    """Logits of BLOCK_C candidates of one state; returns their places in [M], ids (-1: empty) and logits.

    The clusters of always-scored tokens follow the K others in the table, and the probes among those opened.
    """
    batch = tl.program_id(1)
    place = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = place < num_opened * cluster_size
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
    logits = tl.where(filled, _activate(products, activation_ptr), float("-inf"))
    return place, ids, logits


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
    """Stage 2 into lists: ids and logits [B, M], and the best key of every block, [B, blocks]; grid (blocks, B)."""
    place, ids, logits = _opened_block(
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
        BLOCK_C,
        BLOCK_H,
        BY_TOKEN,
    )
    batch = tl.program_id(1)
    candidates = num_opened * cluster_size
    target = batch * candidates + place
    tl.store(candidate_ids_ptr + target, ids.to(tl.int64), mask=place < candidates)
    tl.store(candidate_logits_ptr + target, logits, mask=place < candidates)
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


@triton.jit
def score_into_logits(
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
    width,
    logits_ptr,
    best_logits_ptr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BY_TOKEN: tl.constexpr,
):
    """Stage 2 into the candidates' columns of [B, width], and the best logit of every block; grid (blocks, B)."""
    _, ids, logits = _opened_block(
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
        BLOCK_C,
        BLOCK_H,
        BY_TOKEN,
    )
    batch = tl.program_id(1)
    tl.store(logits_ptr + batch.to(tl.int64) * width + ids, logits.to(logits_ptr.dtype.element_ty), mask=ids >= 0)
    tl.store(best_logits_ptr + batch * tl.num_programs(0) + tl.program_id(0), tl.max(logits, axis=0))


@triton.jit
def fill_closed(
    best_logits_ptr,
    is_open_ptr,
    cluster_of_token_ptr,
    products_ptr,
    estimate_offset_ptr,
    activation_ptr,
    num_clusters,
    width,
    logits_ptr,
    BLOCK_V: tl.constexpr,
):
    """Estimates into all columns of [B, width] that stage 2 left, below the best logit [B]; grid (blocks, B).

    Columns come in the vocabulary's order, so that writes are contiguous; clusters' products come from the cache.
    """
    batch = tl.program_id(1)
    best = tl.load(best_logits_ptr + batch)
    ceiling = best - tl.maximum(tl.abs(best), 1.0) * tl.load(activation_ptr + 2)
    token = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = token < width
    cluster = tl.load(cluster_of_token_ptr + token, mask=inside, other=-1)
    estimated = (cluster >= 0) & (cluster < num_clusters)
    is_open = tl.load(is_open_ptr + batch * num_clusters + cluster, mask=estimated, other=0) != 0
    closed = estimated & (is_open == 0)
    products = tl.load(products_ptr + batch * num_clusters + cluster, mask=closed, other=0)
    products += tl.load(estimate_offset_ptr + cluster, mask=closed, other=0)
    estimates = tl.minimum(_activate(products, activation_ptr), ceiling)
    impossible = (cluster < 0) | (products == float("-inf"))
    values = tl.where(impossible, float("-inf"), estimates).to(logits_ptr.dtype.element_ty)
    tl.store(logits_ptr + batch.to(tl.int64) * width + token, values, mask=inside & (closed | (cluster < 0)))
