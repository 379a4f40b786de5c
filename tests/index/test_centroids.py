"""Centroids fitted to states: what they predict, and what they are pulled to."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from flashhead_edge.index import centroids as module
from flashhead_edge.index.centroids import EMPTY, Centroids, fit_centroids, mean_rows
from flashhead_edge.index.dense import dense_argmax
from flashhead_edge.index.regression import StateRegression
from flashhead_edge.lm_head import LmHead
from tests.tiny_heads import random_head, random_states

VOCAB, WIDTH, CLUSTERS = 120, 16, 30
STATES = random_states(200, WIDTH)


def clusters_of(vocab: int = VOCAB, clusters: int = CLUSTERS) -> torch.Tensor:
    """Random equal clusters, the last one with holes, and then one without any token."""
    order = np.random.default_rng(3).permutation(vocab)
    order = np.append(order, np.full(-vocab % clusters, -1)).reshape(clusters, -1)
    order[-1, -2:] = -1
    return torch.from_numpy(np.vstack([order, np.full((1, order.shape[1]), -1)]))


def fit(head: LmHead, *, states: np.ndarray = STATES, prior_states: float = 5.0) -> Centroids:
    members = clusters_of(head.vocab_size)
    return fit_centroids(head, torch.from_numpy(states), members, num_probes=4, prior_states=prior_states)


def products_of(head: LmHead, members: torch.Tensor) -> np.ndarray:
    ids = members[members >= 0].numpy()
    products = STATES.astype(np.float64) @ head.rows[ids].T
    return products if head.bias is None else products + head.bias[ids]


HEADS = [random_head(VOCAB, WIDTH), random_head(VOCAB, WIDTH, bias=True, logit_scale=0.25)]


def test_they_lean_to_the_states_where_their_cluster_competes() -> None:
    """Predictions of the greatest product err less there than those of a plain regression, and more elsewhere."""
    head = random_head(600, WIDTH)
    states = torch.from_numpy(random_states(3000, WIDTH))
    members = clusters_of(600)[:CLUSTERS]
    found = fit_centroids(head, states, members, num_probes=4, prior_states=1.0)
    greatest = torch.stack([(states @ torch.from_numpy(head.rows[own[own >= 0]]).T).amax(dim=1) for own in members], 1)
    regression = StateRegression(states, 1.0)
    plain = regression.predict(regression.fit(greatest, torch.zeros(CLUSTERS, WIDTH + 1)))
    leaning = states @ found.rows.T + found.bias + found.selection_offset
    competes = greatest > found.threshold.unsqueeze(1)
    torch.testing.assert_close(found.threshold, greatest.topk(4, dim=1).values[:, -1], rtol=1e-3, atol=1e-3)

    def error(predicted: torch.Tensor, where: torch.Tensor) -> float:
        return float((predicted - greatest)[where].square().mean())

    assert error(leaning, competes) < 0.8 * error(plain, competes)
    assert error(leaning, ~competes) > error(plain, ~competes)


@pytest.mark.parametrize("head", HEADS, ids=["plain", "bias and scale"])
def test_scores_say_the_mass_on_average(head: LmHead) -> None:
    found = fit(head)
    for k, own in enumerate(clusters_of()[:CLUSTERS]):
        logits = products_of(head, own) * head.logit_scale
        mass = np.log(np.exp(logits).mean(axis=1)) / head.logit_scale
        score = STATES.astype(np.float64) @ found.rows[k].double().numpy() + float(found.bias[k])
        assert np.mean(mass - score) == pytest.approx(0, abs=1e-3)
        assert float(found.variance[k]) == pytest.approx(np.var(mass - score), rel=5e-3, abs=1e-4)


def test_a_strong_prior_leaves_mean_rows() -> None:
    head = random_head(VOCAB, WIDTH, bias=True)
    rows, bias = mean_rows(head, clusters_of())
    found = fit(head, prior_states=1e12)
    torch.testing.assert_close(found.rows, rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((found.bias + found.selection_offset)[:-1], bias[:-1, 0], rtol=1e-4, atol=1e-4)
    own = clusters_of()[4]
    np.testing.assert_allclose(rows[4], head.rows[own[own >= 0]].mean(axis=0), rtol=1e-5)


def test_fewer_states_than_width_are_enough() -> None:
    found = fit(random_head(VOCAB, 64), states=random_states(5, 64))
    assert all(bool(getattr(found, field.name).isfinite().all()) for field in fields(found))


def test_a_cluster_without_tokens_scores_nothing() -> None:
    found = fit(random_head(VOCAB, WIDTH))
    assert found.bias[-1] == EMPTY
    assert not found.rows[-1].any()
    assert found.selection_offset[-1] == found.variance[-1] == 0


def test_tokens_are_the_dense_heads() -> None:
    head = random_head(VOCAB, WIDTH, bias=True)
    members = clusters_of()
    gone = set(range(VOCAB)) - set(members[members >= 0].tolist())
    expected = dense_argmax(head, torch.from_numpy(STATES))
    here = torch.tensor([int(token) not in gone for token in expected])
    assert torch.equal(fit(head).tokens[here], expected[here])
    assert here.float().mean() > 0.8


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head(VOCAB, WIDTH, bias=True)
    whole = fit(head)
    monkeypatch.setattr(module, "_PRODUCTS_AT_ONCE", 1)
    parts = fit(head)
    for field in fields(whole):
        torch.testing.assert_close(getattr(parts, field.name), getattr(whole, field.name), rtol=1e-4, atol=1e-4)
