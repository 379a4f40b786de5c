"""Which clusters are opened: the best by their scores, the lowest of equal ones, and NaN after everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashhead_edge.lm_head import LmHead
from tests.native.tiny_native import native_and_portable
from tests.tiny_heads import random_index

VALUES = (np.nan, -np.inf, -1e30, -1.0, -0.0, 0.0, 1e-40, 0.5, 1.0, 1.0000001, 3e38, np.inf)


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_best_clusters_are_opened(tmp_path_factory, kernels: str, data: st.DataObject) -> None:
    clusters = data.draw(st.integers(2, 700), "K")
    probes = data.draw(st.integers(1, clusters), "P")
    seed = data.draw(st.integers(0, 2**31), "seed")
    kinds = data.draw(st.sets(st.sampled_from(VALUES), min_size=1), "values")
    spread = data.draw(st.booleans(), "numbers between them")
    random = np.random.default_rng(seed)
    scores = random.choice(np.array(sorted(kinds, key=str), np.float32), clusters)
    if spread:
        scores = np.where(random.random(clusters) < 0.7, random.normal(size=clusters).astype(np.float32), scores)
    head = LmHead(np.zeros((2 * clusters, 32), np.float32))
    index = random_index(head, 2)
    index.selection_offset[:] = scores
    folder: Path = tmp_path_factory.mktemp("head")
    native, _ = native_and_portable(folder / "b", head, index, probes, threads=1)
    best = np.lexsort((np.arange(clusters), -np.nan_to_num(scores, nan=-np.inf).astype(np.float64), np.isnan(scores)))
    (ids,) = native.run(np.zeros((1, 32), np.float32)).candidate_ids
    np.testing.assert_array_equal(ids, index.token_order[np.sort(best[:probes])].ravel())
