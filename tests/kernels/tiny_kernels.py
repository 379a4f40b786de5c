"""Random heads as tensors, and what is true of them in numpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.kernels.head_tensors import HeadTensors, LogitColumns, activation_values
from flashhead_edge.lm_head import LmHead
from flashhead_edge.runtimes.reference import ReferenceHead
from tests.tiny_heads import random_head, random_index, random_states, table_bias, table_rows

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}


class TinyHead(NamedTuple):
    """A head three times: as tensors, as the oracle, and as columns of full-width logits."""

    tensors: HeadTensors
    oracle: ReferenceHead
    columns: LogitColumns
    index: HeadIndex
    head: LmHead


def tiny_head(
    vocab: int,
    width: int,
    size: int,
    probes: int,
    *,
    rows: str = "float32",
    by_token: bool = False,
    always: tuple[int, ...] = (),
    seed: int = 0,
    logits: torch.dtype = torch.float32,
    **features: Any,
) -> TinyHead:
    """The oracle reads the rows as the tensors hold them, so both compute from the same numbers."""
    head = random_head(vocab, width, seed=seed, **features)
    index = random_index(head, size, always=always, seed=seed)
    table = torch.from_numpy(head.rows if by_token else table_rows(head, index))
    scales = None
    if rows == "int8":
        scales = table.abs().amax(dim=-1) / 127
        stored = (table / scales.unsqueeze(-1)).round().to(torch.int8)
        exact = stored.float() * scales.unsqueeze(-1)
    else:
        stored = table.to(DTYPES[rows])
        exact = stored.float()
    exact_table = exact[index.token_order.clip(min=0)] if by_token else exact
    bias = head.bias if by_token else table_bias(head, index)
    activation = torch.tensor(activation_values(head.logit_scale, head.logit_softcap, logits))
    tensors = HeadTensors(
        stored.contiguous(),
        torch.from_numpy(index.token_order),
        index.num_clusters,
        activation,
        scales,
        None if bias is None else torch.from_numpy(np.ascontiguousarray(bias)),
    )
    oracle = ReferenceHead(
        index,
        exact_table.numpy(),
        probes,
        row_bias=table_bias(head, index),
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
    )
    slots = np.full(vocab + 5, -1, np.int32)  # a vocabulary is often padded
    slots[:vocab] = index.slot_of_token
    offset = torch.linspace(-0.5, 0.5, index.num_clusters)
    return TinyHead(tensors, oracle, LogitColumns(torch.from_numpy(slots), offset), index, head)


def stage1(tiny: TinyHead, states: torch.Tensor, probes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Products and probes as the oracle has them: ties aside, which random numbers do not have."""
    products = states.float() @ torch.from_numpy(tiny.index.centroids).T + torch.from_numpy(tiny.index.centroid_bias)
    order = np.argsort(-(products.numpy() + tiny.index.selection_offset), axis=1, kind="stable")[:, :probes]
    return products.contiguous(), torch.from_numpy(np.ascontiguousarray(order))


def check_candidates(tiny: TinyHead, states: torch.Tensor, found: Any) -> None:
    """Against the oracle."""
    expected = tiny.oracle.run(states.float().numpy())
    tokens, ids, logits = (tensor.numpy() for tensor in found)
    np.testing.assert_array_equal(ids, expected.candidate_ids)
    np.testing.assert_allclose(logits, expected.candidate_logits, rtol=2e-5, atol=2e-5)
    assert [array.dtype.name for array in (tokens, ids, logits)] == ["int64", "int64", "float32"]
    for token, row_ids, row in zip(tokens, ids, logits, strict=True):
        assert token == row_ids[row == row.max()].min() >= 0


def check_full_width(tiny: TinyHead, states: torch.Tensor, products: torch.Tensor, logits: torch.Tensor) -> None:
    """Exact where the oracle is, estimates elsewhere, and none of them as great as the best."""
    expected = tiny.oracle.run(states.float().numpy())
    assert logits.shape == (len(states), tiny.columns.width)
    assert logits.dtype == states.dtype
    eps = torch.finfo(states.dtype).eps
    estimates = tiny.oracle._activate(products.numpy() + tiny.columns.estimate_offset.numpy())
    for row in range(len(states)):
        values = logits[row].float().numpy()
        real = expected.candidate_ids[row] >= 0
        ids, exact = expected.candidate_ids[row][real], expected.candidate_logits[row][real]
        np.testing.assert_allclose(values[ids], exact, rtol=eps, atol=max(eps, 2e-5))
        closed = np.setdiff1d(np.arange(tiny.head.vocab_size), ids)
        ceiling = exact.max() - max(abs(exact.max()), 1) * 2 * eps
        guess = np.minimum(estimates[row][tiny.index.slot_of_token[closed] // tiny.index.cluster_size], ceiling)
        np.testing.assert_allclose(values[closed], guess, rtol=eps, atol=max(eps, 2e-5))
        assert (values[closed] < values[ids].max()).all()
        assert np.isneginf(values[tiny.head.vocab_size :]).all()


def states_of(count: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    """[N, H]."""
    return torch.from_numpy(random_states(count, width, seed=seed)).to(dtype)
