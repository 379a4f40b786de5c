"""What the plugin touches of vLLM is there, in every version that ``names.json`` was read from."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.runtimes.vllm.architectures import STANDARD_ARCHITECTURES
from tests.vllm_names.read_names import PLUGIN, imports, signature

VERSIONS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "names.json").read_text())
EMBEDDING = "vllm.model_executor.layers.vocab_parallel_embedding"
PROCESSOR = "vllm.model_executor.layers.logits_processor:LogitsProcessor"
APPLY = "lm_head.quant_method.apply(lm_head, hidden_states, bias=embedding_bias)"

each_version = pytest.mark.parametrize("names", VERSIONS.values(), ids=VERSIONS)


def test_the_range_of_versions_is_covered():
    assert list(VERSIONS) == ["0.14.1", "0.19.1", "0.25.1", "0.28.0", "0.32.0", "0.33.0"]


@each_version
def test_imports_are_there(names):
    wanted = imports()
    assert wanted, "the plugin imports nothing of vLLM"
    unread = set(wanted) - set(names["imports"])
    assert not unread, f"run read_names.py again: it has not looked for {sorted(unread)}"
    missing = {place for place, optional in wanted.items() if names["imports"][place] is None and not optional}
    assert not missing


@each_version
def test_overridden_methods_take_what_they_are_given(names):
    ours = next(
        node
        for node in ast.walk(ast.parse((PLUGIN / "head_method.py").read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "FlashHeadMethod"
    )
    theirs = names["methods"][f"{EMBEDDING}:UnquantizedEmbeddingMethod"]
    signatures = {node.name: signature(node) for node in ours.body if isinstance(node, ast.FunctionDef)}
    assert {"apply", "embedding", "process_weights_after_loading"} <= signatures.keys()
    for name in ("apply", "embedding", "process_weights_after_loading"):
        assert signatures[name] == theirs[name]
    assert signatures["create_weights"] == "self, *arguments, **options"


@each_version
def test_logits_come_from_the_heads_method_before_they_are_gathered(names):
    calls = names["calls"]
    first, second = calls[f"{PROCESSOR}._get_logits"]
    if first != APPLY:
        assert first == "self._apply_head(lm_head, hidden_states, embedding_bias)"
        assert calls[f"{PROCESSOR}._apply_head"][0] == APPLY
    assert second == "self._gather_logits(logits)"


@each_version
def test_scale_and_softcap_come_after_the_heads_method(names):
    first, second = names["calls"][f"{PROCESSOR}.forward"]
    assert first.startswith("self._get_logits(hidden_states, lm_head, embedding_bias")
    assert second == "torch.tanh(logits)"


@each_version
def test_shortcuts_to_the_best_tokens_ask_the_heads_method(names):
    for name in ("get_top_tokens", "get_top_k_tokens"):
        called = names["calls"][f"{PROCESSOR}.{name}"]
        assert called is None or called[0] in (APPLY, "self._apply_head(lm_head, hidden_states, embedding_bias)")


@each_version
def test_tables_are_built_when_weights_are_there(names):
    place = "vllm.model_executor.model_loader.utils:process_weights_after_loading"
    assert names["calls"][place] == ["quant_method.process_weights_after_loading(module)"]


@each_version
def test_grammars_come_after_logits_and_before_the_sampler(names):
    mask, sample = names["calls"]["vllm.v1.worker.gpu_model_runner:GPUModelRunner.sample_tokens"]
    assert mask.startswith("apply_grammar_bitmask(scheduler_output, grammar_output, self.input_batch, logits")
    assert sample.startswith("self._sample(logits")


@each_version
def test_attributes_are_there(names):
    assert all(there for attributes in names["attributes"].values() for there in attributes.values())


@each_version
def test_methods_that_are_called_are_there(names):
    methods = names["methods"]
    assert (
        methods["vllm.model_executor.models.registry:_ModelRegistry"]["register_model"] == "self, model_arch, model_cls"
    )
    assert methods["vllm.model_executor.models.registry:_LazyRegisteredModel"]["load_model_cls"] == "self"
    assert set(methods["vllm.config.model:ModelConfig"].values()) == {"self"}
    for worker in ("cpu_worker:CPUWorker", "gpu_worker:Worker", "xpu_worker:XPUWorker"):
        assert methods[f"vllm.v1.worker.{worker}"]["load_model"].startswith("self")
    runner = methods["vllm.v1.worker.gpu_model_runner:GPUModelRunner"]
    assert runner["get_model"] == "self"
    assert runner["execute_model"].startswith("self, scheduler_output")
    assert names["imports"]["vllm.distributed:tensor_model_parallel_all_gather"] == "input_, dim="


def test_every_architecture_is_in_the_newest_versions():
    for version in ("0.28.0", "0.32.0", "0.33.0"):
        assert VERSIONS[version]["architectures"] == list(STANDARD_ARCHITECTURES)
