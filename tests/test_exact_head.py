"""The exact head: always the dense head's token, proven by the scan or by a pass over all rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_heads import random_head, random_index, random_states, table_bias, table_rows

from flashhead_edge import native
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import RuntimeUnavailableError
from flashhead_edge.exact_head import ExactHead
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.generator import Generator
from flashhead_edge.native.low_bit_rows import LowBitRows
from flashhead_edge.quantize import quantize_rows
from tests.tiny_bundle import write_bundle

needs_native = pytest.mark.skipif(not native.is_available(), reason="the native library was not compiled")
OPTIONS = {"plain": {}, "biased": {"bias": True, "logit_scale": 0.3}, "soft-capped": {"logit_softcap": 2.0}}


def exact_head(head, index, *, bits=8, dtype="float16", threads=1):
    table = table_rows(head, index, dtype)
    table[index.token_order < 0] = 0
    bias = table_bias(head, index)
    if bias is not None:
        bias = np.where(index.token_order < 0, 0, bias).astype(np.float32)
    facts = {"row_bias": bias, "logit_scale": head.logit_scale, "logit_softcap": head.logit_softcap}
    rows = ExactRows(index, table, threads=threads, **facts)
    stored = table.reshape(-1, head.hidden_size)
    quantized = quantize_rows(stored.astype(np.float32), bits)
    flat = None if bias is None else bias.ravel()
    low_bit = LowBitRows.measured(stored, quantized, bias=flat, threads=threads)
    norm = float(np.linalg.norm(stored.astype(np.float64), axis=1).max())
    return ExactHead(rows, low_bit, row_norm=norm), ExactHead(rows)


def token(ids, logits):
    return int(ids[logits == logits.max()].min())


@needs_native
@settings(deadline=None, max_examples=80)
@given(
    vocab=st.integers(70, 400),
    width=st.sampled_from([8, 33, 64]),
    seed=st.integers(0, 2**16),
    bits=st.sampled_from([4, 8]),
    threads=st.integers(1, 3),
    name=st.sampled_from(sorted(OPTIONS)),
    twins=st.booleans(),
)
def test_it_is_always_the_dense_heads_token(vocab, width, seed, bits, threads, name, twins):
    head = random_head(vocab, width, seed=seed, **OPTIONS[name])
    if twins:  # equal and nearly equal rows: ties and near ties everywhere
        rows = head.rows[np.random.default_rng(seed).integers(0, 5, vocab)]
        noise = np.random.default_rng(seed).choice([0, 1e-4], size=rows.shape).astype(np.float32)
        head = replace(head, rows=rows + noise)
    scan, dense = exact_head(head, random_index(head, 5, seed=seed), bits=bits, threads=threads)
    for state in random_states(4, width, seed=seed):
        logits = dense.all_logits(state)
        assert token(*scan.best(state)) == int(logits.argmax())
        np.testing.assert_array_equal(scan.all_logits(state), logits)


@needs_native
def test_most_tokens_are_proven_by_the_scan_and_the_others_by_a_pass():
    head = random_head(2000, 64)
    scan, _ = exact_head(head, random_index(head, 8))
    for state in random_states(50, 64):
        scan.best(state)
    assert scan.proven > 40
    assert scan.proven + scan.scored == 50


@needs_native
def test_states_that_prove_nothing_get_a_pass():
    head = random_head(300, 16)
    scan, _ = exact_head(head, random_index(head, 5))
    for state in (np.zeros(16, np.float32), np.full(16, np.nan, np.float32)):
        ids, _ = scan.best(state)
        assert len(ids) == 300


@needs_native
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.0, "seed": 4}, {"repetition_penalty": 1.5, "logprobs": True}, {"num_drafts": 3}],
    ids=["greedy", "drawn", "penalties", "drafts"],
)
def test_texts_are_the_dense_heads(tmp_path, options):
    bundle = Bundle.open(write_bundle(tmp_path / "tiny"))
    dense, exact = (Generator(bundle, head=head, threads=1) for head in ("dense", "exact"))
    for prompt in ("hello", "abcabcab"):
        ours = exact.generate(prompt, max_new_tokens=24, **options)
        theirs = dense.generate(prompt, max_new_tokens=24, **options)
        assert ours.token_ids == theirs.token_ids
        assert ours.head == "exact"
        if theirs.logprobs:
            np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)


def test_without_the_native_library_it_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv(native.SWITCH, "0")
    with pytest.raises(RuntimeUnavailableError, match="--head dense"):
        Generator(Bundle.open(write_bundle(tmp_path / "tiny")), head="exact")
