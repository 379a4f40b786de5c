"""A tiny model all the way to a bundle, and every way in which that can go wrong."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flashhead_edge import Bundle, FlashHeadError, Generator, export_bundle, layout, native
from flashhead_edge.errors import CalibrationError, ExportError, OptionError, WeightError
from flashhead_edge.export.evaluate import dense_head
from flashhead_edge.export.models import load_model
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.plan import plan_export
from flashhead_edge.export.sources import resolve_source
from flashhead_edge.export.state_files import save_states
from flashhead_edge.export.states import HiddenStates
from flashhead_edge.index.build import IndexOptions
from flashhead_edge.lm_head import LmHead
from flashhead_edge.runtimes import open_head
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from tests.tiny_heads import int8_head

SMALL = IndexOptions(cluster_size=8)


@pytest.fixture(scope="session")
def states_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States that fit every tiny model (H = 64)."""
    path = tmp_path_factory.mktemp("states") / "states.safetensors"
    hidden = np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32)
    save_states(HiddenStates(hidden, np.full(400, "random"), np.full(400, -1, np.int64)), path)
    return path


def head_only(states_file: Path, **changes: Any) -> ExportOptions:
    return ExportOptions(**{"index": SMALL, "body_precision": None, "calibration": str(states_file)} | changes)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("tied", [True, False])
def test_whole_model_writes_what_transformers_writes(
    kind: str, tied: bool, tiny_folder: Any, states_file: Path, tmp_path: Path
) -> None:
    folder = tiny_folder(kind, tied=tied)
    options = head_only(states_file, body_precision="fp32", cluster_precision="fp32", num_probes=64)
    bundle = export_bundle(folder, tmp_path / "bundle", options)
    assert bundle.manifest.tied == tied
    assert (bundle.path / layout.EMBEDDING_DATA).exists() != tied
    model, tokenizer = load_model(resolve_source(str(folder)))
    prompt = "the quick brown fox"
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    for head in ("two-stage", "dense"):
        got = list(Generator(bundle, head=head).generate(prompt, max_new_tokens=12).token_ids)
        assert got == expected[: len(got)]
        assert len(got) >= len(expected) - 1  # a final EOS may be left out


@pytest.mark.parametrize("target", ["tensorrt", "all"])
def test_a_head_for_tensorrt_shares_the_table(target: str, tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    folder = tiny_folder("llama", tied=True)
    bundle = export_bundle(folder, tmp_path / "bundle", head_only(states_file, target=target))
    graph = bundle.path / layout.TENSORRT_HEAD_GRAPH
    assert bundle.manifest.graphs["head_tensorrt"].file == graph.name
    assert graph.with_name(f"{graph.name}.data").stat().st_size < bundle.manifest.files[layout.HEAD_DATA].bytes / 2
    ours = open_head(bundle)
    states = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32)
    found, expected = OnnxRuntimeHead(graph, ours.shape).run(states), ours.run(states)
    same = np.isclose(found.cluster_scores, expected.cluster_scores, atol=0.05, rtol=0.05).mean()
    assert same > 0.95  # both round the centroids to int8, each in its way
    assert (found.token_ids == expected.token_ids).mean() > 0.9


@pytest.mark.parametrize(
    ("centroids", "rows", "portable"),
    [("int4", "fp16", "int4"), ("fp8", "int8", "int8"), ("fp16", "fp8", "fp32"), ("fp32", "fp32", "fp32")],
)
def test_precisions_of_the_head_for_tensorrt(
    centroids: str, rows: str, portable: str, tiny_folder: Any, states_file: Path, tmp_path: Path
) -> None:
    """They are the ones asked for; head.onnx has the next that is not coarser."""
    options = head_only(states_file, target="all", centroid_precision=centroids, cluster_precision=rows)
    manifest = export_bundle(tiny_folder("llama"), tmp_path / "bundle", options).manifest
    record = manifest.graphs["head_tensorrt"].tensorrt
    assert record is not None
    assert (record.centroid_precision, record.cluster_precision) == (centroids, rows)
    assert (record.form, record.batch.most, record.weights) == ("reduce", 8, {})
    assert manifest.index.centroid_precision == portable
    assert manifest.index.cluster_precision == ("fp32" if rows == "fp32" else "fp16")
    assert manifest.graphs["head"].tensorrt is None
    assert "dense_tensorrt" not in manifest.graphs


def test_a_dense_head_for_tensorrt_and_a_large_batch(tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    """int8 is rounded with the calibration's bound in both."""
    options = head_only(states_file, target="tensorrt", tensorrt_dense="int8", tensorrt_max_batch=32)
    bundle = export_bundle(tiny_folder("llama"), tmp_path / "bundle", options)
    records = [bundle.manifest.graphs[name].tensorrt for name in ("head_tensorrt", "dense_tensorrt")]
    assert [(record.form, record.batch.tuned) for record in records if record] == [("matmul", 32)] * 2
    assert layout.TENSORRT_DENSE_GRAPH in bundle.manifest.files


def test_weights_of_the_head_for_tensorrt_are_in_listed_files(
    tiny_folder: Any, states_file: Path, tmp_path: Path
) -> None:
    options = head_only(states_file, target="tensorrt", tensorrt_weight_inputs=True)
    manifest = export_bundle(tiny_folder("llama"), tmp_path / "bundle", options).manifest
    graph = manifest.graphs["head_tensorrt"]
    assert graph.tensorrt is not None
    assert graph.inputs == ["hidden_states", *graph.tensorrt.weights]
    assert graph.tensorrt.weights[layout.ROWS] == manifest.tables[layout.ROWS]
    for place in graph.tensorrt.weights.values():
        assert place.offset + place.length <= manifest.files[place.file].bytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"centroid_precision": "fp8"}, "Only TensorRT has the centroid precision 'fp8'"),
        ({"cluster_precision": "int8"}, "Only TensorRT has the cluster precision 'int8'"),
        ({"tensorrt_dense": "fp16"}, "need a head for TensorRT"),
        ({"tensorrt_max_batch": 4}, "need a head for TensorRT"),
        ({"tensorrt_weight_inputs": True}, "need a head for TensorRT"),
        ({"target": "tensorrt", "cluster_precision": "int4"}, "There is no cluster precision 'int4' for TensorRT"),
        ({"target": "all", "centroid_precision": "int-8"}, "did you mean 'int8'"),
        ({"target": "all", "tensorrt_dense": "fp-16"}, "did you mean 'fp16'"),
        ({"target": "tensorrtt"}, "did you mean 'tensorrt'"),
    ],
)
def test_choices_that_only_tensorrt_has_or_that_nobody_has(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ExportOptions(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tensorrt_max_batch": 1 << 22}, "more numbers than a tensor"), ({"num_probes": 3841}, "open this many")],
)
def test_limits_of_tensorrt_are_found_before_clustering(
    changes: dict[str, Any], message: str, tiny_folder: Any, states_file: Path
) -> None:
    model = resolve_source(str(tiny_folder("llama")))
    head = LmHead(np.zeros((40_000, 64), np.float32))
    options = head_only(states_file, target="all", **changes)
    with pytest.raises(OptionError, match=message):
        plan_export(model, head, options)
    with pytest.raises(OptionError, match="hidden size in int4"):
        plan_export(
            model,
            LmHead(np.zeros((4000, 100), np.float32)),
            head_only(states_file, target="all", centroid_precision="int4"),
        )


def test_tied_bundle_holds_the_table_once(tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    options = head_only(states_file, body_precision="fp32")
    bundle = export_bundle(tiny_folder("llama", tied=True), tmp_path / "bundle", options)
    table = bundle.manifest.tables[layout.ROWS].length
    others = sum(record.bytes for name, record in bundle.manifest.files.items() if name.endswith(".data")) - table
    vocabulary_bytes = bundle.manifest.vocab_size * bundle.manifest.hidden_size * 2
    assert table >= vocabulary_bytes
    body = bundle.manifest.files[layout.BODY_DATA].bytes
    head = bundle.manifest.files[layout.HEAD_DATA].bytes
    assert others == body + head - table
    assert head - table < vocabulary_bytes


@pytest.mark.parametrize("body", ["fp32", None])
def test_rows_that_are_int8_are_stored_so(
    body: str | None, tiny_folder: Any, states_file: Path, tmp_path: Path
) -> None:
    """As the embedding of a .gguf file often is; nothing is rounded once more."""
    source = tiny_folder("llama", tied=True)
    folder = shutil.copytree(source, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    rows = int8_head(weights["model.embed_tokens.weight"].shape[0], 64).rows
    weights["model.embed_tokens.weight"] = torch.from_numpy(rows)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    bundle = export_bundle(folder, tmp_path / "bundle", head_only(states_file, body_precision=body, num_probes=64))
    manifest = bundle.manifest
    assert manifest.index.cluster_precision == "int8"
    assert manifest.row_bytes == 64 + 2 * 2
    np.testing.assert_array_equal(dense_head(bundle).rows, rows)
    others = export_bundle(folder, tmp_path / "low-bit", head_only(states_file, low_bit_rows="int4"))
    assert others.manifest.index.cluster_precision == "fp16"
    if body is None:
        return
    model, tokenizer = load_model(resolve_source(str(folder)))
    prompt = "the quick brown fox"
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    for head, graph in itertools.product(("two-stage", "dense"), ("1", "0")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(native.SWITCH, graph)
            got = list(
                Generator(bundle, head=head, runtime="onnxruntime").generate(prompt, max_new_tokens=12).token_ids
            )
        assert got == expected[: len(got)]
        assert len(got) >= len(expected) - 1


def test_a_table_that_tensorrt_reads_too_has_floats() -> None:
    assert ExportOptions().portable_clusters == "auto"
    for target in ("tensorrt", "all"):
        assert ExportOptions(target=target).portable_clusters == "fp16"
        assert ExportOptions(target=target, cluster_precision="int8").portable_clusters == "fp16"
        assert ExportOptions(target=target).tensorrt().cluster_precision == "fp16"


def test_same_input_and_seed_give_the_same_files(tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    first, second = (
        export_bundle(tiny_folder("llama"), tmp_path / name, head_only(states_file)) for name in ("one", "two")
    )
    same = (layout.INDEX, layout.HEAD_GRAPH, layout.HEAD_DATA, layout.TOKENIZER)
    assert [first.manifest.files[name] for name in same] == [second.manifest.files[name] for name in same]


@pytest.mark.parametrize("calibration", ["builtin", "self", "text"])
def test_calibrations(calibration: str, tiny_folder: Any, tmp_path: Path) -> None:
    if calibration == "text":
        calibration = str(tmp_path / "own.txt")
        Path(calibration).write_text("\n\n".join(f"paragraph {i} says the fox is brown. " * 30 for i in range(12)))
    options = ExportOptions(index=SMALL, body_precision=None, calibration=calibration)
    bundle = export_bundle(tiny_folder("llama"), tmp_path / "bundle", options)
    quality = bundle.manifest.index.quality
    assert quality.positions > 0
    assert 0 <= quality.containment <= 1
    assert bundle.manifest.index.calibration.source in ("builtin", "self", "own.txt")
    assert set(bundle.manifest.eos_token_ids) <= set(bundle.manifest.always_scored_ids)


@pytest.mark.parametrize("kind", ["gemma2", "granite", "cohere", "gpt2"])
def test_heads_with_scales_and_caps(kind: str, tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    bundle = export_bundle(tiny_folder(kind), tmp_path / "bundle", head_only(states_file, num_probes=4))
    states = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    oracle, runtime = (open_head(bundle, name).run(states) for name in ("reference", "onnxruntime"))
    np.testing.assert_allclose(oracle.cluster_scores, runtime.cluster_scores, atol=0.05, rtol=0.05)
    for row in range(len(states)):
        one, two = (
            {
                int(token): float(logit)
                for token, logit in zip(out.candidate_ids[row], out.candidate_logits[row], strict=True)
                if token >= 0
            }
            for out in (oracle, runtime)
        )
        shared = one.keys() & two.keys()
        assert len(shared) > 0.8 * len(one)
        np.testing.assert_allclose([one[t] for t in shared], [two[t] for t in shared], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"num_probes": 0}, OptionError),
        ({"num_probes": 100_000}, OptionError),
        ({"index": IndexOptions(cluster_size=0)}, OptionError),
        ({"index": IndexOptions(cluster_size=100_000)}, OptionError),
        ({"index": IndexOptions(num_clusters_override=1)}, OptionError),
        ({"calibration": "nowhere.txt"}, CalibrationError),
    ],
)
def test_wrong_options_leave_nothing(
    changes: dict[str, Any], error: type[FlashHeadError], tiny_folder: Any, states_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(error):
        export_bundle(tiny_folder("llama"), tmp_path / "bundle", head_only(states_file, **changes))
    assert list(tmp_path.iterdir()) == []


def test_unknown_precision_says_which_there_are() -> None:
    with pytest.raises(OptionError, match="did you mean 'int8' or 'int4'"):
        ExportOptions(centroid_precision="int3")


def test_rows_that_are_not_finite_are_named(tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama", tied=False), tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][7, 3] = float("nan")
    weights["lm_head.weight"][11, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightError, match="7, 11"):
        export_bundle(folder, tmp_path / "bundle", head_only(states_file))
    assert not (tmp_path / "bundle").exists()


def test_states_of_another_model(tiny_folder: Any, tmp_path: Path) -> None:
    path = tmp_path / "states.safetensors"
    hidden = np.zeros((100, 32), np.float32)
    save_states(HiddenStates(hidden, np.full(100, "x"), np.full(100, -1, np.int64)), path)
    with pytest.raises(CalibrationError, match="64"):
        export_bundle(tiny_folder("llama"), tmp_path / "bundle", head_only(path))


def test_existing_output_needs_force(tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    (output / "precious.txt").write_text("keep")
    with pytest.raises(OptionError, match="--force"):
        export_bundle(tiny_folder("llama"), output, head_only(states_file))
    assert (output / "precious.txt").read_text() == "keep"
    export_bundle(tiny_folder("llama"), output, head_only(states_file), force=True)
    assert not (output / "precious.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_full_disk(tiny_folder: Any, states_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(ExportError, match="too full"):
        export_bundle(tiny_folder("llama"), tmp_path / "bundle", head_only(states_file))
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_up_on_the_way(
    tiny_folder: Any, states_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "head.onnx.data")

    monkeypatch.setattr("flashhead_edge.export.exporter.write_head_data", fail)
    with pytest.raises(ExportError, match="No space left"):
        export_bundle(tiny_folder("llama"), tmp_path / "bundle", head_only(states_file))
    assert list(tmp_path.iterdir()) == []


def test_killed_export_leaves_no_bundle_and_is_cleaned_up(tiny_folder: Any, states_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    command = [sys.executable, "-m", "flashhead_edge", "export", str(tiny_folder("llama")), "-o", str(output)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".bundle.partial-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    assert list(tmp_path.glob(".bundle.partial-*"))
    export_bundle(tiny_folder("llama"), output, head_only(states_file))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    Bundle.open(output)


def test_local_path_needs_no_network(tiny_folder: Any, states_file: Path, tmp_path: Path, no_network: None) -> None:
    export_bundle(tiny_folder("qwen2"), tmp_path / "bundle", head_only(states_file))
