"""The recall monitor: its estimates against the truth, and what it does about misses."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from tiny_heads import dense_logits, random_head, random_index, random_states, table_rows

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import OptionError
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.generator import Generator
from flashhead_edge.index.distribution import VocabularyDistribution
from flashhead_edge.monitor import MonitorOptions, Recall, RecallMonitor, joined
from flashhead_edge.runtimes.reference import ReferenceHead
from flashhead_edge.token_scores import TokenScores, WholeVocabulary
from tests.tiny_bundle import write_bundle

HEAD = random_head(120, 16, seed=9)
INDEX = random_index(HEAD, 4, always=(0, 1), seed=9)
ROWS = table_rows(HEAD, INDEX)
VOCABULARY = WholeVocabulary(ExactRows(INDEX, ROWS), VocabularyDistribution(INDEX))
STATES = random_states(600, 16)
OUTPUT = ReferenceHead(INDEX, ROWS, 12).run(STATES)
DENSE = dense_logits(HEAD, STATES)


def scores(row):
    return TokenScores(OUTPUT, STATES[row], row, vocabulary=VOCABULARY)


def run(monitor):
    for row in range(len(STATES)):
        monitor.step(scores(row))
    return monitor.recall


def test_scoring_all_closed_clusters_finds_every_miss():
    recall = run(RecallMonitor(MonitorOptions(every=1, rows=10_000)))
    missed = OUTPUT.token_ids != DENSE.argmax(axis=1)
    regret = DENSE.max(axis=1) - DENSE[np.arange(len(STATES)), OUTPUT.token_ids]
    assert (recall.steps, recall.checks, recall.parts) == (600, 600, 1)
    assert 0 < recall.misses == missed.sum()
    assert recall.agreement == pytest.approx(1 - missed.mean())
    assert recall.regret_mean == pytest.approx(regret.mean(), rel=1e-4)


@pytest.mark.parametrize("rows", [30, 60])
def test_a_part_at_a_time_estimates_the_same(rows):
    recall = run(RecallMonitor(MonitorOptions(every=1, rows=rows)))
    assert recall.parts == 120 // rows
    truth = (OUTPUT.token_ids == DENSE.argmax(axis=1)).mean()
    deviation = np.sqrt(recall.parts * (1 - truth) / recall.checks)
    assert recall.agreement == pytest.approx(truth, abs=4 * deviation)
    assert recall.highest_agreement >= truth - deviation


def test_only_every_nth_step_is_checked():
    monitor = RecallMonitor(MonitorOptions(every=7))
    checked = [row for row in range(30) if monitor.step(scores(row)) is not None]
    assert checked == [6, 13, 20, 27]
    assert (monitor.recall.steps, monitor.recall.checks) == (30, 4)


def test_steps_that_need_no_look_are_counted():
    monitor = RecallMonitor(MonitorOptions(every=7))
    looked_at = [row for row in range(30) if not monitor.passes() and monitor.step(scores(row)) is not None]
    assert looked_at == [6, 13, 20, 27]
    assert (monitor.recall.steps, monitor.recall.checks) == (30, 4)
    monitor.raised_probes = 1
    assert not monitor.passes()
    assert monitor.recall.steps == 30


def test_nothing_is_known_before_the_first_check():
    recall = RecallMonitor(MonitorOptions()).recall
    assert (recall.agreement, recall.regret_mean, recall.highest_agreement) == (None, None, 1.0)


def test_the_upper_limit_is_that_of_the_poisson_distribution():
    """Lower 95 % limits of the mean of a Poisson variable seen as x: 0.0513, 0.355, 5.43 (chi-square tables / 2)."""
    for seen, fewest, error in ((1, 0.0513, 0.25), (2, 0.355, 0.05), (10, 5.425, 0.01)):
        recall = Recall(1000, 1000, 1, seen, 0.0)
        assert 1 - recall.highest_agreement == pytest.approx(fewest / 1000, rel=error)


def test_a_broken_floor_is_logged_once_for_each_miss(caplog):
    with caplog.at_level(logging.WARNING, logger="flashhead_edge.monitor"):
        recall = run(RecallMonitor(MonitorOptions(every=1, rows=10_000, floor=0.9999)))
    assert 0 < len(caplog.records) <= recall.misses
    assert "below the floor" in caplog.text


def test_a_floor_that_holds_says_nothing(caplog):
    with caplog.at_level(logging.WARNING, logger="flashhead_edge.monitor"):
        run(RecallMonitor(MonitorOptions(every=1, rows=10_000, floor=0.1)))
    assert not caplog.records


def test_more_probes_raise_the_agreement():
    options = MonitorOptions(every=1, rows=10_000, floor=0.9999, action="probes", more_probes=4)
    monitor = RecallMonitor(options)
    plain = run(RecallMonitor(MonitorOptions(every=1, rows=10_000)))
    recall = run(monitor)
    assert monitor.raised_probes > 0
    assert recall.misses < plain.misses


def test_texts_add_up_to_the_process():
    parts = [Recall(1, 1, 4, 1, 0.5), Recall(1, 1, 4, 0, 0.0)]
    assert joined(parts) == Recall(2, 2, 4, 1, 0.5)
    assert joined([]).agreement is None


@pytest.mark.parametrize(
    "fields", [{"every": 0}, {"rows": 0}, {"floor": 1.0}, {"action": "loud"}, {"more_probes": 0}], ids=str
)
def test_options_are_checked(fields):
    with pytest.raises(OptionError):
        MonitorOptions(**fields)


def test_generations_report_what_was_found(tmp_path):
    bundle = Bundle.open(write_bundle(tmp_path / "tiny"))
    generator = Generator(bundle, threads=1, monitor=MonitorOptions(every=4))
    first = generator.generate("hello", max_new_tokens=10)
    second = generator.generate("hello", max_new_tokens=10)
    assert (first.recall["checks"], second.recall["checks"]) == (2, 3)
    assert first.recall["agreement"] == 1.0  # all clusters are open
    assert generator.monitor.recall.checks == 5
    assert first.token_ids == Generator(bundle, threads=1).generate("hello", max_new_tokens=10).token_ids
    assert Generator(bundle, threads=1).generate("hello", max_new_tokens=2).recall is None


def test_a_text_goes_on_with_the_dense_head(tmp_path):
    bundle = Bundle.open(write_bundle(tmp_path / "tiny"))
    generator = Generator(bundle, threads=1, monitor=MonitorOptions(every=4, floor=0.9, action="dense"))
    plain = generator.generate("hello", max_new_tokens=12).token_ids
    opened = []
    step = generator.decoder.step

    def spied(ids, *, scored=1, greedy=False):
        opened.append("two-stage")
        generator.monitor.wants_dense = len(opened) > 3
        return step(ids, scored=scored, greedy=greedy)

    generator.decoder.step = spied
    assert generator.generate("hello", max_new_tokens=12).token_ids == plain
    assert len(opened) == 4  # the rest came from the dense head's graph
