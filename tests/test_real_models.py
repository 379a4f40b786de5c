"""SmolLM2-135M from its PyPI package: export, fidelity on held-out text, and text that reads like text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge import Bundle, Generator, layout, native
from flashhead_edge.drafts import computes_alike
from flashhead_edge.index.storage import load_index
from flashhead_edge.monitor import MonitorOptions
from tests.native.row_products import rows_are_alike

pytestmark = pytest.mark.real_model

TEXTS = Path(__file__).resolve().parent.parent / "benchmarks" / "texts"
DOMAINS = ("prose_en", "manual_en", "code_python", "de", "es", "fr", "it", "pt")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, object]]:
    return export(tmp_path_factory.mktemp("real") / "bundle")


def export(output: Path, *options: str) -> tuple[Bundle, dict[str, object]]:
    from benchmarks.models import model_file

    command = ["export", str(model_file("smollm2")), "-o", str(output), "--json", *options]
    run = subprocess.run([sys.executable, "-m", "flashhead_edge", *command], capture_output=True, text=True, check=True)
    return Bundle.open(output), json.loads(run.stdout)


def test_report(exported: tuple[Bundle, dict[str, object]]) -> None:
    _, report = exported
    assert report["vocab_size"] == 49152
    assert report["hidden_size"] == 576
    assert report["reduction"] >= 9.5
    assert report["agreement"] >= 0.975
    assert report["clustering_seconds"] < 120


def test_tied_table_is_there_once(exported: tuple[Bundle, dict[str, object]]) -> None:
    bundle, _ = exported
    assert not (bundle.path / layout.EMBEDDING_DATA).exists()
    assert bundle.manifest.index.cluster_precision == "int8"  # as the file has them
    assert bundle.manifest.files[layout.HEAD_DATA].bytes < 1.1 * 49152 * 576 * 34 / 32


@pytest.fixture(scope="session")
def held_out() -> np.ndarray:
    """States of held-out text, [N, H]."""
    from benchmarks.models import model_file
    from flashhead_edge.export.models import load_model
    from flashhead_edge.export.sources import resolve_source
    from flashhead_edge.export.states import Passage, teacher_forced_states

    source = resolve_source(str(model_file("smollm2")))
    passages = [
        Passage(domain, text.strip())
        for domain in DOMAINS
        for text in (TEXTS / f"{domain}.txt").read_text(encoding="utf-8").split("\n---\n")
    ]
    return teacher_forced_states(*load_model(source), passages).hidden


def test_agreement_on_held_out_text(exported: tuple[Bundle, dict[str, object]], held_out: np.ndarray) -> None:
    from benchmarks.models import model_file
    from flashhead_edge.export.heads import read_head
    from flashhead_edge.export.sources import resolve_source
    from flashhead_edge.index.agreement import measure_agreement
    from flashhead_edge.runtimes import open_head

    bundle, _ = exported
    head = read_head(resolve_source(str(model_file("smollm2"))))
    containment, agreement = measure_agreement(head, open_head(bundle), held_out)
    assert containment >= agreement - 1e-9
    assert agreement >= 0.98


@pytest.mark.parametrize(
    ("centroids", "rows"), [("int8", "fp16"), ("int4", "int8"), ("fp8", "fp8"), ("fp16", "fp32"), ("fp32", "fp16")]
)
def test_the_head_for_tensorrt_is_the_reference(
    exported: tuple[Bundle, dict[str, object]], held_out: np.ndarray, centroids: Any, rows: Any, tmp_path: Path
) -> None:
    """On the numbers that it stores: the same tokens, cluster scores and logits to 1e-3 of about 30."""
    from flashhead_edge.export.tensorrt_head import TensorRtOptions, write_tensorrt_head
    from flashhead_edge.runtimes.base import HeadShape
    from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
    from flashhead_edge.runtimes.reference import ReferenceHead
    from tests.tensorrt_oracle import tables_of, written_rows

    bundle, _ = exported
    (tmp_path / layout.HEAD_DATA).hardlink_to(bundle.path / layout.HEAD_DATA)
    tables, index = tables_of(bundle), load_index(bundle.path / layout.INDEX)
    graph = tmp_path / layout.TENSORRT_HEAD_GRAPH
    write_tensorrt_head(tmp_path, tables, index, TensorRtOptions(centroids, rows), name=graph.name)
    fine = written_rows(graph, "head.tensorrt.rows", rows)
    reference = ReferenceHead(
        replace(index, centroids=written_rows(graph, "head.tensorrt.centroids", centroids)),
        tables.rows.read(tmp_path).clusters(slice(None)) if fine is None else fine,
        tables.num_probes,
    )
    shape = HeadShape(
        index.vocab_size,
        index.hidden_size,
        index.num_clusters,
        index.cluster_size,
        tables.num_probes,
        index.num_candidates(tables.num_probes),
    )
    states = held_out[:: len(held_out) // 64]
    found, expected = OnnxRuntimeHead(graph, shape).run(states), reference.run(states)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.cluster_scores, expected.cluster_scores, atol=1e-3)
    best = [np.sort(output.candidate_logits, axis=1)[:, -100:] for output in (found, expected)]
    np.testing.assert_allclose(*best, atol=1e-3)


def test_written_text_is_the_dense_heads(exported: tuple[Bundle, dict[str, object]]) -> None:
    """Fed what the dense head writes, the two-stage head wants the same tokens; left alone, it writes some text."""
    from benchmarks.demo import PROMPTS, agreement_on
    from flashhead_edge.runtimes.decoder import Decoder
    from flashhead_edge.tokenizer import Tokenizer

    bundle, _ = exported
    dense, two_stage = Generator(bundle, head="dense"), Generator(bundle)
    tokenizer = Tokenizer(bundle.path)
    prompts = [np.array([tokenizer.encode(text)], np.int64) for text in PROMPTS]
    texts = {i: list(dense.generate(text, max_new_tokens=40).token_ids) for i, text in enumerate(PROMPTS)}
    decoder = Decoder(bundle.path / layout.DECODE_GRAPH, bundle.manifest.body)
    assert agreement_on(decoder, prompts, texts) >= 0.95
    for text in PROMPTS:
        assert len(two_stage.generate(text, max_new_tokens=24).text.split()) >= 3


def test_chat(exported: tuple[Bundle, dict[str, object]]) -> None:
    bundle, _ = exported
    answer = Generator(bundle).generate("What is two plus two?", chat=True, max_new_tokens=40)
    assert answer.text.strip()
    assert "<|im_end|>" not in answer.text


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "city": {"enum": ["Paris", "Rome", "Berlin"]}},
    "required": ["name", "city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "constraint",
    [
        {"choice": ["red", "green", "blue"]},
        {"regex": "[0-9]{3}-[a-z]{4,8}"},
        {"regex": "[A-Z][a-z ]{10,60}\\."},
        {"json_schema": PERSON},
    ],
    ids=str,
)
def test_constrained_texts_are_the_dense_heads(
    exported: tuple[Bundle, dict[str, object]], constraint: dict[str, Any]
) -> None:
    bundle, _ = exported
    dense, exact, two_stage = (Generator(bundle, head=head) for head in ("dense", "exact", "two-stage"))
    for prompt in ("The answer is ", "Describe a person: ", "In short: "):
        expected = dense.generate(prompt, max_new_tokens=60, **constraint).token_ids
        assert exact.generate(prompt, max_new_tokens=60, **constraint).token_ids == expected
        text = two_stage.generate(prompt, max_new_tokens=60, **constraint)
        assert text.token_ids == expected
        drawn = two_stage.generate(prompt, max_new_tokens=80, temperature=1.0, seed=1, **constraint)
        for written in (text, drawn):
            if written.finish_reason == "stop":
                assert_follows(written.text, constraint)


def assert_follows(text: str, constraint: dict[str, Any]) -> None:
    """Check a complete text."""
    if "json_schema" in constraint:
        assert set(json.loads(text)) == {"name", "city"}
    elif "regex" in constraint:
        assert re.fullmatch(constraint["regex"], text)
    else:
        assert text in constraint["choice"]


@pytest.mark.parametrize("head", ["two-stage", "dense"])
def test_drafts_and_batches_change_no_token(exported: tuple[Bundle, dict[str, object]], head: str) -> None:
    """Over a body that rounds activations to 8 bits; as its own draft model, the model guesses mostly right."""
    bundle, _ = exported
    plain = Generator(bundle, head=head)
    if not native.is_available() and not (rows_are_alike(4) and rows_are_alike(8)):
        pytest.skip("on this processor, ONNX Runtime's low-bit product computes one row in another order than several")
    assert computes_alike(plain.decoder)
    modelled = Generator(bundle, head=head, draft=Generator(bundle, head=head))
    prompts = [
        "Apples, pears, plums, apples, pears, plums, apples,",
        "def read_lines(path):",
        "The history of the lighthouse",
        "Die Stadt liegt an einem Fluss und",
    ]
    expected = [plain.generate(prompt, max_new_tokens=48).token_ids for prompt in prompts]
    accepted = 0
    for prompt, tokens in zip(prompts, expected, strict=True):
        for generator, num_drafts in ((plain, 2), (plain, 6), (modelled, 4)):
            drafted = generator.generate(prompt, max_new_tokens=48, num_drafts=num_drafts)
            assert drafted.token_ids == tokens
            accepted += drafted.accepted_drafts
        assert drafted.accepted_drafts > drafted.drafted_tokens / 2
    assert accepted > 200
    batch = plain.generate_batch(prompts, rows=3, max_new_tokens=48)
    assert [text.token_ids for text in batch] == expected


def test_the_monitor_sees_the_agreement(exported: tuple[Bundle, dict[str, object]]) -> None:
    bundle, _ = exported
    generator = Generator(bundle, monitor=MonitorOptions(every=1))
    for prompt in ("The history of", "def main():", "Das Wetter ist"):
        generator.generate(prompt, max_new_tokens=40)
    recall = generator.monitor.recall
    assert recall.checks == recall.steps == 120
    assert recall.highest_agreement > 0.97


@pytest.mark.parametrize("model", ["smollm2", "gemma3-270m"])
def test_token_table_of_a_real_tokenizer(model: str, tmp_path: Path) -> None:
    from benchmarks.models import model_file
    from flashhead_edge.export.sources import resolve_source
    from flashhead_edge.export.tokenizer_files import save_tokenizer
    from flashhead_edge.tokenizer_backends import TableBackend, WholeBackend, open_backend

    save_tokenizer(resolve_source(str(model_file(model))), tmp_path)
    whole, part = WholeBackend(tmp_path / layout.TOKENIZER), open_backend(tmp_path)
    assert isinstance(part, TableBackend)
    texts = [file.read_text() for file in sorted(TEXTS.glob("*.txt"))]
    parts = [text[start : start + 60] for text in texts for start in range(0, len(text), 301)]
    for text in [*texts, *parts]:
        ids = whole.encode(text, add_special_tokens=True)
        assert part.encode(text, add_special_tokens=True) == ids
        assert part.decode(ids) == whole.decode(ids)


@pytest.mark.parametrize("head", ["decode", "dense"])
def test_graphs_for_gpus_say_the_same_on_the_processor(exported: tuple[Bundle, dict[str, object]], head: str) -> None:
    """Attention is float16 there; states part no further than by reading a text at once instead of token by token.

    The body rounds activations to 8 bits, so whatever changes last bits moves its states by some percent.
    """
    from flashhead_edge.bench.turns import PROMPTS
    from flashhead_edge.runtimes.decoder import Decoder

    bundle, _ = exported
    body, tokenizer = bundle.manifest.body, Generator(bundle).tokenizer
    assert body is not None
    whole, half = (Decoder(bundle.file(bundle.graph(name).file), body, threads=2) for name in (head, f"{head}_cuda"))
    ids = np.array([[token for prompt in PROMPTS for token in tokenizer.encode(prompt)]], np.int64)

    def states(decoder: Decoder) -> np.ndarray:
        decoder.reset()
        return np.concatenate([decoder.step(ids[:, place : place + 1]).hidden_states for place in range(ids.shape[1])])

    def distance(found: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)))

    expected = states(whole)
    whole.reset()
    at_once = whole.step(ids, scored=ids.shape[1]).hidden_states
    assert 0 < distance(states(half)) < 1.5 * distance(at_once) < 0.1
