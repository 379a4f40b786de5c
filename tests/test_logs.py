"""Log lines of the package."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashhead_edge import Bundle, Generator
from flashhead_edge.errors import OptionError
from flashhead_edge.logs import configure
from tests.tiny_bundle import write_bundle


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    logger = logging.getLogger("flashhead_edge")
    before = (logger.handlers, logger.level)
    yield
    logger.handlers, logger.level = before


def test_a_generation_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    generator = Generator(Bundle.open(write_bundle(tmp_path / "tiny")), runtime="onnxruntime")
    generator.generate("abc", max_new_tokens=3, min_tokens=3)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["runtime chosen", "text generated"]
    assert lines[0]["runtime"] == "onnxruntime"
    assert (lines[1]["tokens"], lines[1]["finish_reason"]) == (3, "length")
    assert {"time", "level", "logger"} <= lines[0].keys()
    assert lines[0]["logger"].startswith("flashhead_edge.")


def test_text_and_levels(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    log = logging.getLogger("flashhead_edge.somewhere")
    log.info("not shown")
    log.warning("%d of %d", 1, 2, extra={"fields": {"parts": 3}})
    assert capsys.readouterr().err == "warning: 1 of 2 parts=3\n"


@pytest.mark.parametrize("kind", ["text", "json"])
def test_exceptions_are_kept(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("error", kind)
    try:
        {}["lost"]
    except KeyError:
        logging.getLogger("flashhead_edge").exception("failed")
    assert "KeyError: 'lost'" in capsys.readouterr().err


def test_a_second_call_takes_the_place_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    configure("info", "json")
    logging.getLogger("flashhead_edge").info("once")
    assert json.loads(capsys.readouterr().err)["message"] == "once"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(OptionError, match="log level 'loud'"):
        configure("loud")
    with pytest.raises(OptionError, match="log format 'xml'"):
        configure("info", "xml")
