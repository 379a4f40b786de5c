"""The oracle against the definition, written out token by token."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge import layout
from flashhead_edge.errors import OptionError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.reference import ReferenceHead
from tests.tiny_heads import BITS, head_bundle, random_head, random_index, random_states, table_bias, table_rows


def by_definition(
    head: LmHead, index: HeadIndex, centroids: np.ndarray, probes: int, state: np.ndarray
) -> tuple[dict[int, float], list[float]]:
    """Logits by candidate and the clusters' scores, in Python's floats."""

    def dot(row: np.ndarray) -> float:
        return math.fsum(float(a) * float(b) for a, b in zip(row, state, strict=True))

    def activate(product: float) -> float:
        logit = product * head.logit_scale
        return logit if head.logit_softcap is None else head.logit_softcap * math.tanh(logit / head.logit_softcap)

    products = [dot(row) + float(index.centroid_bias[k]) for k, row in enumerate(centroids)]
    ranked = sorted(range(len(products)), key=lambda k: -(products[k] + float(index.selection_offset[k])))
    opened = [*ranked[:probes], *range(index.num_clusters, len(index.token_order))]
    logits = {
        int(token): activate(dot(head.rows[token]) + (0.0 if head.bias is None else float(head.bias[token])))
        for cluster in opened
        for token in index.token_order[cluster]
        if token >= 0
    }
    return logits, [activate(product) for product in products]


@pytest.mark.parametrize("centroids", ["fp32", "int8", "int4"])
@pytest.mark.parametrize(
    "features", [{}, {"bias": True, "logit_scale": 0.5, "logit_softcap": 4.0}], ids=["plain", "all"]
)
def test_it_follows_the_definition(centroids: str, features: dict[str, Any]) -> None:
    head = random_head(83, 24, **features)
    index = random_index(head, 5, always=(0, 41))
    states = random_states(6, 24)
    output = ReferenceHead(
        index,
        table_rows(head, index),
        3,
        row_bias=table_bias(head, index),
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
        centroid_precision=centroids,
    ).run(states)
    rows = index.centroids if centroids == "fp32" else quantize_rows(index.centroids, BITS[centroids]).dequantize()
    for b, state in enumerate(states):
        logits, scores = by_definition(head, index, rows, 3, state)
        found = dict(zip(output.candidate_ids[b].tolist(), output.candidate_logits[b].tolist(), strict=True))
        found.pop(-1)
        assert found == pytest.approx(logits, rel=1e-4, abs=1e-5)
        assert output.cluster_scores[b] == pytest.approx(scores, rel=1e-4, abs=1e-5)
        assert output.token_ids[b] == max(logits, key=lambda token: (logits[token], -token))


def test_the_offset_chooses_but_is_no_part_of_the_score() -> None:
    head = random_head(40, 16)
    index = random_index(head, 4)
    index.selection_offset[:] = 0
    index.selection_offset[6] = 1e6
    plain = random_states(2, 16) @ index.centroids.T
    output = ReferenceHead(index, table_rows(head, index), 1).run(random_states(2, 16))
    np.testing.assert_allclose(output.cluster_scores, plain, rtol=1e-5)
    assert output.candidate_ids.tolist() == [index.token_order[6].tolist()] * 2


@pytest.mark.parametrize("probes", [0, -1, 11])
def test_probes_are_checked(probes: int) -> None:
    head = random_head(40, 16)
    index = random_index(head, 4)
    with pytest.raises(OptionError, match="1 to 10"):
        ReferenceHead(index, table_rows(head, index), probes)


def test_an_unknown_precision_is_refused() -> None:
    head = random_head(40, 16)
    index = random_index(head, 4)
    with pytest.raises(OptionError, match="int2"):
        ReferenceHead(index, table_rows(head, index), 2, centroid_precision="int2")


def test_the_table_of_a_bundle_stays_mapped(tmp_path: Path) -> None:
    head = random_head(40, 16)
    bundle = head_bundle(tmp_path / "b", head, random_index(head, 4), 2)
    assert isinstance(bundle.table(layout.ROWS), np.memmap)
    assert ReferenceHead.from_bundle(bundle).providers == ("numpy",)
