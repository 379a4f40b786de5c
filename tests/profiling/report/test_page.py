"""The page: complete in itself, well-formed, and safe with any text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from flashhead_edge.profiling.report.content import Content
from flashhead_edge.profiling.report.page import render_page
from tests.profiling.profiles import MEASURED, PREDICTED
from tests.profiling.report.test_plots import FULL

_VOID = {"meta", "br"}


class Checker(HTMLParser):
    """Keeps tags, ids and texts, and fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_it_loads_and_runs_nothing() -> None:
    page = render_page(FULL)
    found = check(page)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(found.tags)
    assert not [pair for pair in found.attributes if pair[0].startswith("on") or pair[0] in ("src", "href")]
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_ids_are_unique_and_labels_point_to_them() -> None:
    found = check(render_page(FULL))
    assert len(found.ids) == len(set(found.ids))
    labels = [value for name, value in found.attributes if name == "aria-labelledby"]
    assert labels
    assert {part for label in labels for part in label.split()} <= set(found.ids)


def test_it_says_what_was_measured_and_what_was_predicted() -> None:
    text = check(render_page(FULL)).text
    assert "measured" in text
    assert "nobody measured them" in text
    assert "jetson-orin-nano-8gb" in text
    assert "Some CPU" in text
    assert "20.0 GB/s (stream test, 2 threads)" in text
    assert "not measured" in text  # energy
    alone = check(render_page(Content((MEASURED,)))).text
    assert "predict" not in alone
    assert "predicted" in check(render_page(Content((PREDICTED,)))).text


def test_texts_are_escaped() -> None:
    name = "<script>alert(1)</script>"
    profile = replace(MEASURED, model=replace(MEASURED.model, name=name), notes=("<b>&",))
    page = render_page(Content((profile,)))
    assert "script" not in check(page).tags
    assert "&lt;script&gt;" in page
    assert name in check(page).text


def test_both_schemes_and_a_phone_are_provided_for() -> None:
    page = render_page(FULL)
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport" content="width=device-width' in page
