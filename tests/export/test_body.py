"""The decoder body, compared with Transformers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from tiny_bodies import CONFIGS, HIDDEN, VOCAB, empty_cache, save_tiny_model, session, step

from flashhead_edge.errors import BodyExportError, OptionalDependencyError, OptionError
from flashhead_edge.export import body as body_module
from flashhead_edge.export.body import BodyInfo, Precision, export_body
from flashhead_edge.export.body_support import BODY_ARCHITECTURES

PROMPT, STEPS = 15, 5


class Exported(NamedTuple):
    model: torch.nn.Module
    source: Path
    folder: Path
    info: BodyInfo


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Precision], Exported]:
    """Export every model once; each export starts a process."""
    done: dict[tuple[str, str], Exported] = {}

    def exported(kind: str, precision: Precision) -> Exported:
        if (kind, precision) not in done:
            source, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("bundle")
            model = save_tiny_model(kind, source)
            done[kind, precision] = Exported(model, source, folder, export_body(source, folder, precision=precision))
        return done[kind, precision]

    return exported


def hidden_states(exported: Exported) -> tuple[np.ndarray, np.ndarray, float]:
    """What the body, and Transformers in double precision, make of a prompt and five cached steps, [S, H] each.

    The last value is how far off Transformers is in float32: some tiny models amplify rounding.
    """
    ids = torch.randint(3, VOCAB, (1, PROMPT + STEPS), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = copy.deepcopy(exported.model).double().model(input_ids=ids).last_hidden_state[0].numpy()
        rounded = exported.model.model(input_ids=ids).last_hidden_state[0].numpy()
        embeds = exported.model.get_input_embeddings()(ids).numpy()
        embeds *= getattr(exported.model.config, "embedding_multiplier", 1.0)
    run, cache, found = session(exported.folder / "body.onnx"), empty_cache(exported.info), []
    for start, stop in [(0, PROMPT), *((i, i + 1) for i in range(PROMPT, PROMPT + STEPS))]:
        feed = {"inputs_embeds": embeds[:, start:stop], "attention_mask": np.ones((1, stop), np.int64)}
        (hidden,), cache = step(run, exported.info, cache, ["hidden_states"], **feed)
        found.append(hidden[0])
    return np.concatenate(found), expected, float(np.abs(rounded - expected).max())


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "llama-untied"])
def test_float_body_equals_transformers(export: Callable[..., Exported], kind: str) -> None:
    found, expected, rounding = hidden_states(export(kind, "fp32"))
    np.testing.assert_allclose(found, expected, atol=max(1e-4, 3 * rounding))


def test_all_supported_architectures_are_compared(export: Callable[..., Exported]) -> None:
    compared = {export(kind, "fp32").model.config.architectures[0] for kind in CONFIGS if kind != "llama-untied"}
    assert compared == set(BODY_ARCHITECTURES)


@pytest.mark.parametrize(("precision", "cosine"), [("int8", 0.999), ("int4", 0.85)])
def test_quantized_body_is_close(export: Callable[..., Exported], precision: Precision, cosine: float) -> None:
    found, expected, _ = hidden_states(export("llama", precision))
    products = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert products.mean() > cosine


def test_graph_is_standard_and_says_what_it_is(export: Callable[..., Exported]) -> None:
    exported = export("gemma3", "fp32")
    path = exported.folder / "body.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["flashhead_edge.precision"] == "fp32"
    assert metadata["flashhead_edge.head_dim"] == "16"
    assert "+" not in model.producer_version
    locations = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    assert locations == {"body.onnx.data"}
    assert {"SimplifiedLayerNormalization"}.isdisjoint(node.op_type for node in model.graph.node)


def test_info_names_the_cache_by_layer(export: Callable[..., Exported]) -> None:
    info = export("gemma3", "fp32").info
    assert (info.num_layers, info.num_kv_heads, info.head_dim, info.hidden_size) == (6, 2, 16, HIDDEN)
    assert info.max_positions == 128
    assert info.past_key_names[5] == "past_key_values.5.key"
    assert info.present_value_names[0] == "present.0.value"


def test_only_the_two_files_remain(export: Callable[..., Exported]) -> None:
    folder = export("llama", "fp32").folder
    assert {path.name for path in folder.iterdir()} == {"body.onnx", "body.onnx.data"}
    assert not list(folder.parent.glob(".*body*"))


def test_context_can_be_capped_and_layers_are_reported(export: Callable[..., Exported], tmp_path: Path) -> None:
    exported, output, calls = export("llama", "fp32"), tmp_path / "out", []
    output.mkdir()
    info = export_body(
        exported.source, output, precision="fp32", max_positions=32, progress=lambda *call: calls.append(call)
    )
    assert info.max_positions == 32
    assert calls == [("export body", done, 3) for done in range(4)]
    whole, capped = (weight_bytes(folder / "body.onnx") for folder in (exported.folder, output))
    assert whole - capped == (128 - 32) * info.head_dim * 4


def weight_bytes(graph: Path) -> int:
    """Of the weights in a graph's file, without what fills it up to pages."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    return sum(int(e.value) for tensor in tensors for e in tensor.external_data if e.key == "length")


class TestFailures:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        save_tiny_model("llama", folder)
        return folder

    @pytest.fixture
    def output(self, tmp_path: Path) -> Path:
        folder = tmp_path / "out"
        folder.mkdir()
        return folder

    @staticmethod
    def change(source: Path, **fields: object) -> None:
        path = source / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def expect(self, source: Path, output: Path, *words: str) -> None:
        with pytest.raises(BodyExportError) as caught:
            export_body(source, output, precision="int4")
        for word in words:
            assert word in str(caught.value)
        assert not list(output.iterdir())
        assert not list(output.parent.glob(".*"))

    def test_unknown_architecture_names_those_that_work(self, source: Path, output: Path) -> None:
        self.change(source, architectures=["OlmoForCausalLM"])
        self.expect(source, output, "OlmoForCausalLM", "LlamaForCausalLM, MistralForCausalLM", "--no-body")

    @pytest.mark.parametrize(
        "fields",
        [
            {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
            {"rope_scaling": {"type": "linear", "factor": 4.0}},
            {"rope_parameters": {"full_attention": {"rope_type": "linear"}, "sliding_attention": {}}},
        ],
    )
    def test_rope_that_comes_out_wrong_is_refused(self, source: Path, output: Path, fields: dict) -> None:
        self.change(source, **fields)
        self.expect(source, output, "RoPE", "linear", "default or llama3")

    def test_dropped_sliding_window_is_refused(self, source: Path, output: Path) -> None:
        self.change(source, architectures=["MistralForCausalLM"], sliding_window=64)
        self.expect(source, output, "a window of 64 tokens in a context of 128", "cap the context at 64")

    def test_no_config(self, source: Path, output: Path) -> None:
        (source / "config.json").unlink()
        self.expect(source, output, "config.json", "cannot be read")

    def test_builder_failure_shows_its_last_lines(self, source: Path, output: Path) -> None:
        (source / "model.safetensors").unlink()
        self.expect(source, output, "exit status 1", "last lines", "model.safetensors")

    def test_options(self, source: Path, output: Path) -> None:
        with pytest.raises(OptionError, match="int4"):
            export_body(source, output, precision="int5")
        with pytest.raises(OptionError, match="at least 1"):
            export_body(source, output, precision="int4", max_positions=0)

    @pytest.mark.parametrize(
        ("status", "lines", "words"),
        [
            (-9, [], ["memory ran out", "more memory"]),
            (-11, ["x"], ["SIGSEGV"]),
            (1, ["ModuleNotFoundError: No module named 'peft'"], ["'peft'", "flashhead-edge[export]"]),
        ],
    )
    def test_what_a_dead_builder_means(self, status: int, lines: list[str], words: list[str]) -> None:
        message = str(body_module._failure(status, lines))
        assert all(word in message for word in words)

    def test_missing_package(self, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(body_module, "_PACKAGES", ("no_such_package",))
        with pytest.raises(OptionalDependencyError, match=r"flashhead-edge\[export\]"):
            export_body(source, output, precision="int4")

    def test_an_interrupt_ends_the_builder(self, source: Path, output: Path) -> None:
        def interrupt(stage: str, done: int, total: int) -> None:
            if done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_body(source, output, precision="fp32", progress=interrupt)
        assert not list(output.parent.glob(".*"))
