"""The dense truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flashhead_edge.index import dense
from flashhead_edge.index.dense import dense_argmax
from flashhead_edge.lm_head import LmHead
from tests.tiny_heads import dense_logits, random_head, random_states


@pytest.mark.parametrize("features", [{}, {"bias": True}, {"bias": True, "logit_scale": 3.0, "logit_softcap": 90.0}])
def test_it_is_the_argmax_of_the_logits(features: dict[str, object]) -> None:
    head = random_head(300, 24, **features)
    states = random_states(200, 24)
    found = dense_argmax(head, torch.from_numpy(states))
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), dense_logits(head, states).argmax(axis=1))


def test_ties_go_to_the_lowest_id() -> None:
    rows = np.zeros((5000, 8), np.float32)
    rows[[17, 1200, 4999]] = 1
    states = torch.stack([torch.ones(8), torch.zeros(8), -torch.ones(8)])
    assert dense_argmax(LmHead(rows), states).tolist() == [17, 0, 0]


def test_batches_change_nothing_and_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head(100, 16)
    states = torch.from_numpy(random_states(25, 16))
    whole = dense_argmax(head, states)
    monkeypatch.setattr(dense, "_LOGITS_AT_ONCE", 1000)
    calls: list[tuple[str, int, int]] = []
    assert dense_argmax(head, states, progress=lambda *call: calls.append(call)).tolist() == whole.tolist()
    assert [(done, total) for _, done, total in calls] == [(10, 25), (20, 25), (25, 25)]
