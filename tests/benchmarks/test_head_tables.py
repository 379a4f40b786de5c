from __future__ import annotations

from benchmarks import head_tables

METHOD = {"num_clusters": 16384, "cluster_size": 16, "seconds": 24.13, "peak_over_rows": 2.29}
SHARES = {"128": 0.95, "256": 0.987, "512": 0.994}
CLUSTERING = {
    "machine": {"cpu_model": "Some CPU"},
    "threads": 2,
    "shapes": [
        {
            "vocab_size": 262144,
            "hidden_size": 640,
            "data": "rows of a model",
            "methods": [
                {**METHOD, "method": "balanced bisection", "iterations": None, "containment": SHARES},
                {**METHOD, "method": "spherical k-means", "iterations": 6, "containment": None},
            ],
        }
    ],
}


def test_clusterings_without_containment_are_not_measured():
    lines = head_tables.clustering(CLUSTERING).splitlines()
    same = "16,384 of 16 | 24.1 | 2.29"
    assert lines[2:4] == [
        f"| 262,144 x 640 | balanced bisection | {same} | 0.987 | 0.994 |",
        f"| 262,144 x 640 | spherical k-means, 6 iterations | {same} | not measured | not measured |",
    ]
    assert lines[-1] == "262,144 x 640 are rows of a model. 2 threads of Some CPU."


def test_kernels_stand_beside_each_other_by_target():
    found = [
        {"build": build, "target": target, "registers": 40, "shared_bytes": 1024}
        for build in ("int8", "int4")
        for target in ("sm_87", "sm_110")
    ]
    assert head_tables.kernels({"kernels": found}).splitlines() == [
        "| kernel | sm_87 | sm_110 |",
        "| --- | --- | --- |",
        "| int8 | 40, 1024 | 40, 1024 |",
        "| int4 | 40, 1024 | 40, 1024 |",
    ]
