from __future__ import annotations

import pytest

from flashhead_edge.runtimes.vllm import models
from flashhead_edge.runtimes.vllm.dense_path import DENSE_PATH


def test_class_names_tell_versions_apart():
    names = {models.class_name("LlamaForCausalLM", version) for version in ("0.32.0", "0.32.0+cpu", "0.33.0")}
    assert len(names) == 3
    assert all(name.isidentifier() and name.startswith("FlashHeadLlamaForCausalLM__") for name in names)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "FlashHeadGPT2LMHeadModel", "FlashHead", "anything"])
def test_other_names_do_not_exist(name):
    with pytest.raises(AttributeError):
        getattr(models, name)


class Base:
    def __init__(self, *, vllm_config, prefix=""):
        raise AssertionError("memory is taken here")

    def compute_logits(self, hidden_states):
        return hidden_states


class Model(models.FlashHeadMixin, Base):
    pass


def test_a_model_that_is_dense_for_good_counts_its_rows():
    model = Model.__new__(Model)
    model.dense_reason = "a reason of this test"
    assert model.compute_logits([1, 2, 3]) == [1, 2, 3]
    assert DENSE_PATH.rows.pop("a reason of this test") == 3
