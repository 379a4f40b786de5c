"""Exported bundles have native graphs over the same tables, and write the same text with and without the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flashhead_edge import layout, native
from flashhead_edge.errors import OptionError
from flashhead_edge.export.exporter import export_bundle
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.generator import Generator
from flashhead_edge.index.build import IndexOptions
from flashhead_edge.quantize import QuantizedRows
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from tests.tiny_heads import random_states


@pytest.fixture(scope="session")
def states_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("states") / "states.safetensors"
    save_file({"hidden": random_states(600, 64)}, file)
    return file


@pytest.mark.parametrize("low_bit_rows", [None, "int8", "int4"])
def test_text_is_the_same_with_and_without_the_library(
    low_bit_rows: str | None, tiny_folder: Any, states_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(
        index=IndexOptions(cluster_size=8),
        calibration=str(states_file),
        body_precision="fp32",
        num_probes=12,
        low_bit_rows=low_bit_rows,
    )
    bundle = export_bundle(tiny_folder("llama"), tmp_path / "bundle", options)
    manifest = bundle.manifest
    assert manifest.graphs["decode_native"].outputs == manifest.graphs["decode"].outputs
    assert manifest.graphs["head_native"].inputs == manifest.graphs["head"].inputs
    assert choose_graph(bundle, "decode").name == layout.NATIVE_DECODE_GRAPH
    assert choose_graph(bundle, "dense").name == layout.NATIVE_DENSE_GRAPH
    prompts = ("the quick brown fox", "a", "over the lazy dog and")
    with_library = [Generator(bundle).generate(prompt, max_new_tokens=10).token_ids for prompt in prompts]
    states = random_states(8, manifest.hidden_size)
    found = OnnxRuntimeHead.from_bundle(bundle).run(states)
    monkeypatch.setenv(native.SWITCH, "0")
    assert [Generator(bundle).generate(prompt, max_new_tokens=10).token_ids for prompt in prompts] == with_library
    np.testing.assert_array_equal(found.token_ids, OnnxRuntimeHead.from_bundle(bundle).run(states).token_ids)

    assert (layout.LOW_BIT_CODES in manifest.tables) == (low_bit_rows is not None)
    if low_bit_rows is not None:
        codes, scales = bundle.table(layout.LOW_BIT_CODES), bundle.table(layout.LOW_BIT_SCALES)
        width = manifest.hidden_size
        flat = QuantizedRows(
            codes.reshape(-1, *codes.shape[2:]), scales.reshape(-1, scales.shape[2]), int(low_bit_rows[3:]), width
        )
        rows = bundle.table(layout.ROWS).astype(np.float32).reshape(-1, width)
        largest = np.abs(scales).max()
        assert np.abs(flat.dequantize() - rows).max() <= 1.01 * largest  # the scale's own sign costs one step at worst


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("llama", "int4"), ("gemma3_text", "int4"), ("gemma2", "int4"), ("gemma3_text", "int8"), ("qwen3", "fp32")],
)
def test_a_position_has_the_same_bits_in_every_step(
    kind: str, precision: str, tiny_folder: Any, states_file: Path, tmp_path: Path
) -> None:
    """Tokens one by one, several at a time, and side by side with other texts."""
    options = ExportOptions(
        index=IndexOptions(cluster_size=8), calibration=str(states_file), body_precision=precision, num_probes=12
    )
    bundle = export_bundle(tiny_folder(kind, intermediate_size=128), tmp_path / "bundle", options)
    body = bundle.manifest.body
    assert body is not None
    ids = np.random.default_rng(0).integers(0, bundle.manifest.vocab_size, (3, 30))
    for name in ("decode", "dense"):
        decoder = Decoder(choose_graph(bundle, name), body, threads=1)

        def read(splits: list[int], rows: slice = slice(1), decoder: Decoder = decoder) -> np.ndarray:
            decoder.reset()
            decoder.step(ids[rows, :9])
            begin, outputs = 9, []
            for length in splits:
                outputs.append(decoder.step(ids[rows, begin : begin + length], scored=length))
                begin += length
            count, width = len(ids[rows]), outputs[0].hidden_states.shape[1]
            return np.concatenate([output.hidden_states.reshape(count, -1, width) for output in outputs], axis=1)

        expected = read([1] * 20)
        for splits in ([20], [2] * 10, [3, 1, 5, 4, 7]):
            np.testing.assert_array_equal(read(splits), expected)
        together = read([1] * 20, slice(3))
        np.testing.assert_array_equal(together[:1], expected)
        np.testing.assert_array_equal(read([4] * 5, slice(3)), together)


def test_another_precision_of_low_bit_rows_is_refused() -> None:
    with pytest.raises(OptionError, match="low-bit rows 'int2'"):
        ExportOptions(low_bit_rows="int2")
