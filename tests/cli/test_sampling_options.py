"""Options of ``generate`` that choose tokens."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from flashhead_edge.cli import main
from flashhead_edge.cli.sampling_options import sampling_keywords
from flashhead_edge.errors import OptionError
from flashhead_edge.generation import GenerationOptions
from flashhead_edge.tokenizer import Tokenizer
from tests.tiny_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


DEFAULTS = {
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "seed": None,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": (),
    "allowed_ids": None,
    "bad_words": (),
    "min_tokens": 0,
    "regex": None,
    "json_schema": None,
    "choice": (),
    "grammar": None,
}


def keywords(bundle, **given):
    options = DEFAULTS | given
    found = sampling_keywords(options, Tokenizer(bundle))
    assert options == {}
    return found


def test_without_options_they_are_the_defaults(bundle):
    assert GenerationOptions.of(**keywords(bundle)) == GenerationOptions()


def test_texts_become_values(bundle):
    found = keywords(bundle, logit_bias=("5=-1.5", "7=2"), allowed_ids="3, 10-12", bad_words=("ab",))
    assert found["logit_bias"] == {5: -1.5, 7: 2.0}
    assert found["allowed_ids"] == (3, 10, 11, 12)
    tokenizer = Tokenizer(bundle)
    plain, spaced = (tuple(tokenizer.encode(text, add_special_tokens=False)) for text in ("ab", " ab"))
    assert found["bad_words"] == (plain, spaced)


@pytest.mark.parametrize(
    "given",
    [
        {"logit_bias": ("5",)},
        {"logit_bias": ("a=1",)},
        {"allowed_ids": "a"},
        {"allowed_ids": "5-"},
        {"allowed_ids": ""},
    ],
    ids=str,
)
def test_texts_that_mean_nothing_are_errors(bundle, given):
    with pytest.raises(OptionError):
        keywords(bundle, **given)


def run(bundle, *arguments):
    result = CliRunner().invoke(main, ["generate", str(bundle), "hello", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_constraints(bundle, tmp_path):
    pytest.importorskip("llguidance")
    assert re.fullmatch("[0-9]{4}", run(bundle, "--regex", "[0-9]{4}")["text"])
    assert run(bundle, "--choice", "yes", "--choice", "no")["text"] in ("yes", "no")
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "boolean"}')
    for given in (str(schema), '{"type": "boolean"}'):
        assert isinstance(json.loads(run(bundle, "--json-schema", given)["text"]), bool)
    grammar = tmp_path / "g.lark"
    grammar.write_text('start: "q" "r"\n')
    assert run(bundle, "--grammar", str(grammar))["text"] == "qr"


def test_everything_at_once(bundle):
    report = run(
        bundle, "--temperature", "1", "--top-k", "50", "--typical-p", ".9", "--repetition-penalty", "1.2",
        "--presence-penalty", ".1", "--frequency-penalty", ".1", "--min-tokens", "4", "--seed", "3",
        "--top-logprobs", "3", "--logprobs", "--num-drafts", "2", "--max-new-tokens", "12", "--monitor", "4",
    )  # fmt: skip
    assert len(report["token_ids"]) == len(report["logprobs"]) == len(report["top_logprobs"])
    assert all(len(step) == 3 for step in report["top_logprobs"])
    assert report["recall"]["checks"] >= 1


def test_a_draft_bundle(bundle):
    plain = run(bundle, "--max-new-tokens", "16")
    drafted = run(bundle, "--max-new-tokens", "16", "--draft", str(bundle), "--num-drafts", "3")
    assert drafted["token_ids"] == plain["token_ids"]
    assert drafted["accepted_drafts"] == drafted["drafted_tokens"] > 0


def test_errors_are_messages(bundle):
    result = CliRunner().invoke(main, ["generate", str(bundle), "hello", "--regex", "a", "--choice", "b"])
    assert result.exit_code == 2
    assert "one constraint" in result.output
