"""Which worker an engine gets; vLLM's own configuration runs in tests/vllm."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flashhead_edge.runtimes.vllm import workers
from flashhead_edge.runtimes.vllm.config_rules import choose_worker


def config(worker="auto", speculative=None):
    return SimpleNamespace(
        parallel_config=SimpleNamespace(worker_cls=worker), speculative_config=speculative, model_config=object()
    )


@pytest.mark.parametrize(("device", "name"), [("cpu", "CPUWorker"), ("cuda", "Worker"), ("xpu", "XPUWorker")])
def test_the_platforms_worker_is_extended(device, name):
    chosen = config()
    choose_worker(chosen, device)
    assert chosen.parallel_config.worker_cls == f"flashhead_edge.runtimes.vllm.workers.{name}"


@pytest.mark.parametrize(("worker", "device"), [("my.own.Worker", "cuda"), ("auto", "tpu"), ("auto", None)])
def test_other_workers_are_left_and_said_so(worker, device, caplog):
    chosen = config(worker)
    choose_worker(chosen, device)
    assert chosen.parallel_config.worker_cls == worker
    assert "keep estimated logits" in caplog.text


def test_without_the_two_stage_head_the_worker_is_the_platforms(monkeypatch):
    monkeypatch.setenv("FLASHHEAD_ENABLED", "0")
    chosen = config()
    choose_worker(chosen, "cpu")
    assert chosen.parallel_config.worker_cls == "auto"


def test_a_draft_does_not_choose():
    chosen = config(speculative=SimpleNamespace(target_model_config=object()))
    choose_worker(chosen, "cpu")
    assert chosen.parallel_config.worker_cls == "auto"


def test_unknown_workers_do_not_exist():
    with pytest.raises(AttributeError, match="TPUWorker"):
        workers.TPUWorker  # noqa: B018
