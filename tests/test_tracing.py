"""Traces: valid, nested, and complete."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge import Bundle, Generator
from flashhead_edge.monitor import MonitorOptions
from flashhead_edge.tracing import Tracer, span
from tests.tiny_bundle import write_bundle

STEPS = ("read prompt", "decode step")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def spans(tracer: Tracer, path: Path) -> list[dict[str, Any]]:
    """The spans of a written trace, after a look at their form."""
    tracer.write(path)
    document = json.loads(path.read_text())
    events = document["traceEvents"]
    assert events[0]["ph"] == "M"
    assert all(event["ph"] == "X" for event in events[1:])
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in events[1:])
    assert len({event["pid"] for event in events}) == 1
    return events[1:]


def check_nested(events: list[dict[str, Any]]) -> None:
    """Any two spans of a thread lie within each other or apart."""
    ends: list[float] = []
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        start, end = event["ts"], event["ts"] + event["dur"]
        while ends and ends[-1] <= start + 1e-3:
            ends.pop()
        assert not ends or end <= ends[-1] + 1e-3, event
        ends.append(end)


def test_a_text(bundle: Bundle, tmp_path: Path) -> None:
    tracer = Tracer()
    generator = Generator(bundle, tracer=tracer, monitor=MonitorOptions(every=3), runtime="onnxruntime")
    result = generator.generate("abc", max_new_tokens=12, min_tokens=12)
    events = spans(tracer, tmp_path / "trace.json")
    check_nested(events)
    names = [event["name"] for event in events]
    assert len(result.token_ids) == 12
    assert names.count("choice") == 12
    assert names.count("read prompt") == names.count("generate") == names.count("prompt to ids") == 1
    assert names.count("decode step") == 11
    assert names.count("monitor") == 12
    assert names.count("detokenization") == 12
    (whole,) = (event for event in events if event["name"] == "generate")
    assert whole["args"] == {"prompt_tokens": result.prompt_tokens}
    parts = [event for event in events if event["name"] in STEPS]
    assert all(whole["ts"] <= part["ts"] <= whole["ts"] + whole["dur"] for part in parts)
    assert [part["args"]["tokens"] for part in parts] == [result.prompt_tokens] + [1] * 11
    assert all(one["ts"] + one["dur"] <= two["ts"] + 1e-3 for one, two in pairwise(parts))


def test_a_text_that_is_not_read_to_its_end(bundle: Bundle, tmp_path: Path) -> None:
    tracer = Tracer()
    stream = Generator(bundle, tracer=tracer, runtime="onnxruntime").stream("abc")
    next(stream)
    stream.close()
    events = spans(tracer, tmp_path / "trace.json")
    check_nested(events)
    assert [event["name"] for event in events].count("generate") == 1


def test_texts_side_by_side(bundle: Bundle, tmp_path: Path) -> None:
    tracer = Tracer()
    generator = Generator(bundle, tracer=tracer, runtime="onnxruntime")
    texts = generator.generate_batch(["a", "bcd"], max_new_tokens=5, min_tokens=5)
    events = spans(tracer, tmp_path / "trace.json")
    check_nested(events)
    names = [event["name"] for event in events]
    assert names.count("read prompt") == 2
    assert names.count("choice") == sum(len(text.token_ids) for text in texts)
    assert [event["args"]["tokens"] for event in events if event["name"] == "decode step"] == [2, 2, 2, 2]


def test_spans() -> None:
    tracer = Tracer()
    with pytest.raises(KeyError), tracer.span("outer", size=3), span(tracer, "inner"):
        raise KeyError
    with span(None, "nothing"):
        pass
    events = tracer.as_dict()["traceEvents"][1:]
    assert [event["name"] for event in events] == ["outer", "inner"]
    assert events[0]["args"] == {"size": 3}
    assert {event["tid"] for event in events} == {threading.get_native_id()}
    check_nested(events)


def test_overlapping_spans_would_be_noticed() -> None:
    tracer = Tracer()
    tracer.add("one", 1e6, 1e6 + 2)
    tracer.add("two", 1e6 + 1, 1e6 + 3)
    with pytest.raises(AssertionError):
        check_nested(tracer.as_dict()["traceEvents"][1:])
