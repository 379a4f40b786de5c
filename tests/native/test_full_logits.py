"""Full-width logits of the native library against the oracle, and against plain torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.kernels import operators
from flashhead_edge.kernels.head_tensors import CentroidTensors, HeadTensors, LogitColumns
from flashhead_edge.native.full_logits import FullLogits
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.reference import ReferenceHead
from tests.kernels.cases import SHAPES, STATES
from tests.kernels.tiny_kernels import TinyHead, check_full_width, states_of, tiny_head
from tests.tiny_heads import table_bias

ALWAYS = (0, 3, 27, 59)


def native_head(
    vocab: int, width: int, size: int, probes: int, dtype: torch.dtype = torch.float32, seed: int = 0, **features: bool
) -> tuple[TinyHead, FullLogits]:
    """A head in the library, and the oracle for the centroids that its codes stand for."""
    rows = str(dtype).removeprefix("torch.")
    tiny = tiny_head(
        vocab, width, size, probes, rows=rows, by_token=True, always=ALWAYS, logits=dtype, seed=seed, **features
    )
    codes = quantize_rows(tiny.index.centroids, 8)
    index = replace(tiny.index, centroids=codes.dequantize())
    table = tiny.tensors.rows.float()[index.token_order.clip(min=0)].numpy()
    oracle = ReferenceHead(index, table, probes, row_bias=table_bias(tiny.head, index))
    centroids = CentroidTensors(
        torch.from_numpy(codes.codes), torch.from_numpy(codes.float_scales), torch.from_numpy(index.centroid_bias), 8
    )
    offset = torch.from_numpy(index.selection_offset)
    return (
        tiny._replace(oracle=oracle, index=index),
        FullLogits(tiny.tensors, tiny.columns, centroids, offset, probes),
    )


def run(head: FullLogits, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Products and logits."""
    found = head.candidates(states)
    return found.products, head.fill(found, found.best)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", STATES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_logits_of_every_type_and_shape(shape, dtype, bias):
    vocab, width, size, probes, batch = shape
    tiny, head = native_head(vocab, width, size, probes, dtype, bias=bias)
    states = states_of(batch, width, dtype)
    products, logits = run(head, states)
    assert logits.is_contiguous()
    expected = tiny.oracle.run(states.float().numpy()).cluster_scores
    np.testing.assert_allclose(products.numpy(), expected, rtol=1e-4, atol=1e-3)
    check_full_width(tiny, states, products, logits)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vocab=st.integers(64, 300),
    width=st.integers(1, 100),
    size=st.integers(1, 40),
    batch=st.integers(1, 9),
    dtype=st.sampled_from(STATES),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_any_shape_is_as_plain_torch(vocab, width, size, batch, dtype, seed, data):
    probes = data.draw(st.integers(1, -(-(vocab - len(ALWAYS)) // size)))
    tiny, head = native_head(vocab, width, size, probes, dtype, seed)
    states = states_of(batch, width, dtype)
    products, logits = run(head, states)
    offset = torch.from_numpy(tiny.index.selection_offset)
    expected = operators.full_width_logits(tiny.tensors, tiny.columns, states, products, offset, probes)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(logits, expected, rtol=2 * eps, atol=max(2 * eps, 2e-5))


@pytest.mark.parametrize("dtype", STATES, ids=str)
def test_each_state_of_a_batch_is_as_alone(dtype):
    _, head = native_head(300, 64, 8, 5, dtype)
    states = states_of(9, 64, dtype)
    _, together = run(head, states)
    alone = torch.cat([run(head, state[None])[1] for state in states])
    assert torch.equal(together, alone)


def test_threads_change_nothing():
    _, head = native_head(2100, 64, 8, 50, torch.bfloat16)
    assert head._tables.region, "torch runs without OpenMP here"
    states = states_of(5, 64, torch.bfloat16)
    head._tables.threads = 4
    shared = run(head, states)
    head._tables.region = None
    assert all(map(torch.equal, shared, run(head, states)))


def test_devices_that_share_a_vocabulary_agree_with_one():
    tiny, whole = native_head(149, 40, 6, 4)
    half = 80
    parts = []
    for first, after in ((0, half), (half, 149)):
        order = tiny.tensors.token_order - first
        order = order.where((tiny.tensors.token_order >= first) & (order < after - first), -1)
        head = HeadTensors(
            tiny.tensors.rows[first:after].clone(), order, tiny.index.num_clusters, tiny.tensors.activation
        )
        columns = LogitColumns(tiny.columns.slot_of_token[first:after].contiguous(), tiny.columns.estimate_offset)
        _, _, centroids, offset, *_ = whole._kept
        parts.append(FullLogits(head, columns, centroids, offset, 4))
    states = states_of(3, 40)
    found = [part.candidates(states) for part in parts]
    best = torch.stack([part.best for part in found]).amax(dim=0)
    logits = torch.cat([part.fill(one, best) for part, one in zip(parts, found, strict=True)], dim=1)
    assert torch.equal(logits, run(whole, states)[1][:, :149])


def test_states_that_are_not_finite_give_logits_that_are_not():
    _, head = native_head(149, 40, 6, 4)
    states = states_of(2, 40)
    states[0, 3] = torch.nan
    _, logits = run(head, states)
    assert logits[0, :149].isnan().all()
    assert logits[1, :149].isfinite().all()


def test_no_states_have_no_logits():
    _, head = native_head(149, 40, 6, 4)
    assert run(head, states_of(0, 40))[1].shape == (0, 154)


def test_rounding_is_torchs():
    tiny, head = native_head(149, 1, 6, 4, torch.float16)
    for states in (torch.tensor([[1e-5], [6e-8], [3e4], [9e4]]), torch.linspace(-3e-4, 3e-4, 50)[:, None]):
        found = head.candidates(states)
        logits = head.fill(found, found.best)
        for row, ids, exact in zip(logits, found.ids, found.logits, strict=True):
            assert torch.equal(row[ids[ids >= 0]], exact[ids >= 0].half())
    assert tiny.tensors.rows.dtype == torch.float16


@pytest.mark.parametrize("change", [{"num_clusters": 3}, {"token_order": torch.full((26, 6), 149, dtype=torch.int32)}])
def test_tensors_that_do_not_fit_are_refused(change):
    tiny, head = native_head(149, 40, 6, 4)
    _, columns, centroids, offset, *_ = head._kept
    with pytest.raises(OptionError, match="do not fit"):
        FullLogits(replace(tiny.tensors, **change), columns, centroids, offset, 4)
