"""Rows whose requests name tokens, from the scheduler's output as vLLM gives it; vLLM itself runs in tests/vllm."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from flashhead_edge.runtimes.vllm.named_rows import NamedRows, attach, names_tokens


def sampling(**settings):
    plain = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "logit_bias": None}
    return SimpleNamespace(**plain | {"allowed_token_ids": None, "structured_outputs": None} | settings)


def step(new=(), scheduled=(), drafts=None, finished=()):
    return SimpleNamespace(
        scheduled_new_reqs=[SimpleNamespace(req_id=name, sampling_params=params) for name, params in new],
        num_scheduled_tokens=dict.fromkeys(scheduled, 1),
        scheduled_spec_decode_tokens=drafts or {},
        finished_req_ids=set(finished),
    )


def runner_of(*requests):
    return SimpleNamespace(input_batch=SimpleNamespace(req_ids=list(requests)))


BIASED = sampling(logit_bias={3: 1.0})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"repetition_penalty": 1.3, "presence_penalty": 1.0}, False),
        ({"logit_bias": {1: 2.0}}, True),
        ({"allowed_token_ids": [1, 2]}, True),
        ({"structured_outputs": object()}, True),
        ({"logprob_token_ids": [5]}, True),
        ({"presence_penalty": -0.1}, True),
        ({"frequency_penalty": -1.0}, True),
        ({"repetition_penalty": 0.9}, True),
    ],
)
def test_what_names_tokens(settings, expected):
    assert names_tokens(sampling(**settings)) is expected


def test_a_request_without_sampling_names_nothing():
    assert not names_tokens(None)


def test_rows_follow_the_batch_and_its_drafts():
    rows = NamedRows(runner_of("a", "b", "c"))
    rows.begin(step([("a", sampling()), ("b", BIASED), ("c", BIASED)], "abc", {"a": [7, 8], "c": [9]}))
    assert list(rows(6)) == [3, 4, 5]  # a has rows 0 to 2, b row 3, c rows 4 and 5


def test_rows_are_of_the_step_only():
    rows = NamedRows(runner_of("a", "b"))
    assert list(rows(2)) == []
    rows.begin(step([("a", BIASED), ("b", sampling())], "ab"))
    assert list(rows(2)) == [0]
    rows.end()
    assert list(rows(2)) == []
    rows.begin(step((), "b"))  # a waits in this one
    assert list(rows(1)) == []
    rows.begin(step((), "ab", finished="a"))
    assert list(rows(2)) == []


def test_an_id_that_comes_again_is_another_request():
    rows = NamedRows(runner_of("a"))
    rows.begin(step([("a", BIASED)], "a"))
    rows.begin(step([("a", sampling())], "a"))
    assert list(rows(1)) == []


@pytest.mark.parametrize("runner", [runner_of("a", "b"), SimpleNamespace()], ids=["counted otherwise", "no batch"])
def test_rows_that_cannot_be_told_apart_are_all_exact(runner):
    rows = NamedRows(runner)
    rows.begin(step([("a", BIASED), ("b", sampling())], "ab"))
    assert list(rows(5)) == [0, 1, 2, 3, 4]


class Method:
    def __init__(self):
        self.named_rows = lambda num_rows: ()
        self.adapters = set()


class AdapterLayer:
    """As vLLM's: setting a slot resets it first."""

    def __init__(self):
        self.calls = []

    def reset_lora(self, index):
        self.calls.append(("reset", index))

    def set_lora(self, index, lora_a, lora_b):
        self.reset_lora(index)
        self.calls.append(("set", index))


class Runner:
    def __init__(self, method, layer=None):
        self.input_batch = SimpleNamespace(req_ids=["a", "b"])
        head = SimpleNamespace(quant_method=method)
        self.model = SimpleNamespace(modules=lambda: [self, head, head], logits_processor=layer)
        self.seen = []

    def get_model(self):
        return self.model

    def execute_model(self, scheduler_output, extra=None):
        self.seen.append(list(self.model.modules()[1].quant_method.named_rows(2)))
        if extra == "fail":
            raise RuntimeError(extra)
        return extra


def test_attach_shows_the_step_while_it_is_executed():
    runner, method = Runner(Method()), None
    attach(runner)
    method = runner.model.modules()[1].quant_method
    assert runner.execute_model(step([("b", BIASED)], "ab"), extra="result") == "result"
    assert runner.seen == [[1]]
    assert list(method.named_rows(2)) == []
    with pytest.raises(RuntimeError):
        runner.execute_model(step((), "ab"), extra="fail")
    assert list(method.named_rows(2)) == []
    assert "execute_model" not in vars(Runner(Method()))  # only that object


def test_attach_leaves_a_model_without_two_stages_alone():
    runner = Runner(SimpleNamespace())
    attach(runner)
    assert "execute_model" not in vars(runner)


def test_adapters_on_the_head_are_watched():
    method, layer = Method(), AdapterLayer()
    attach(Runner(method, layer))
    layer.set_lora(1, np.ones(3), np.zeros(3))  # as in vLLM's warm-up
    assert method.adapters == set()
    layer.set_lora(2, np.ones(3), lora_b=np.array([0.0, 0.5]))
    assert method.adapters == {2}
    layer.reset_lora(2)
    assert method.adapters == set()
    assert layer.calls == [("reset", 1), ("set", 1), ("reset", 2), ("set", 2), ("reset", 2)]
