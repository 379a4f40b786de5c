from __future__ import annotations

import logging

from flashhead_edge.runtimes.vllm.dense_path import DensePath


def test_a_reason_is_said_once_and_counted(caplog):
    path = DensePath()
    with caplog.at_level(logging.WARNING, logger="vllm.flashhead_edge"):
        path.take("many rows")
        path.take("many rows", 8)
        path.take("another type", 2)
        path.take("many rows", 3)
    assert path.rows == {"many rows": 11, "another type": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "The dense head is used: many rows.",
        "The dense head is used: another type.",
    ]
