"""The page in headless Chromium, on a phone and on a screen, light and dark (``make test-report``)."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import zlib
from html import escape
from pathlib import Path

import numpy as np
import pytest

from flashhead_edge.profiling.report.page import render_page
from flashhead_edge.profiling.report.palette import DARK, LIGHT
from tests.profiling.report.test_plots import FULL

pytestmark = pytest.mark.chromium
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
#: Writes what does not fit into the title of the frame around the page, which ``--dump-dom`` shows.
_PROBE = """<script>addEventListener("load", () => {
  const most = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("body *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > most + 0.5 && !e.closest(".scroll") && !e.closest("svg");
  });
  const shown = [...document.querySelectorAll("svg")].filter(e => e.getBoundingClientRect().width);
  const cut = shown.flatMap(s => [...s.querySelectorAll("text")].filter(t => {
    const frame = s.getBoundingClientRect(), box = t.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 2;
  }));
  const small = shown.flatMap(s => [...s.querySelectorAll("text")]).filter(t => {
    const svg = t.ownerSVGElement;
    return parseFloat(t.getAttribute("font-size")) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width < 10;
  });
  const names = list => list.slice(0, 3).map(e => e.tagName + ":" + e.textContent.slice(0, 20)).join("|");
  parent.document.title = `width=${most} scroll=${document.documentElement.scrollWidth} shown=${shown.length} ` +
    `wide=[${names(wide)}] cut=[${names(cut)}] small=[${names(small)}]`;
});</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for path in map(shutil.which, _PROGRAMS) if path), None)
    assert found, "Chromium is missing; on Debian and Ubuntu: apt-get install chromium"
    return found


def run(chromium: str, page: Path, width: int, *options: str, height: int = 1000, dark: bool = False) -> str:
    """Open the page; returns what Chromium prints."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [chromium, "--headless", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1", *sandbox]
    command += [f"--user-data-dir={page.parent / 'browser'}", f"--window-size={width},{height}", *scheme, *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def pixels(path: Path) -> np.ndarray:
    """An 8-bit PNG [height, width, channels], unfiltered by hand so that the tests need no image library."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, body, size = 8, b"", (0, 0, 0)
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            wide, high, depth, color = struct.unpack(">IIBB", content[:10])
            assert depth == 8
            size = (high, wide, {2: 3, 6: 4}[color])
        body += content if kind == b"IDAT" else b""
        place += 12 + length
    high, wide, channels = size
    lines = np.frombuffer(zlib.decompress(body), np.uint8).reshape(high, 1 + wide * channels)
    image = np.zeros((high, wide * channels), np.uint8)
    for y in range(high):
        above = image[y - 1] if y else np.zeros_like(image[0])
        image[y] = _unfiltered(int(lines[y, 0]), lines[y, 1:], above, channels)
    return image.reshape(size)


def _unfiltered(kind: int, line: np.ndarray, above: np.ndarray, channels: int) -> np.ndarray:
    """Undo a filter of a line: https://www.w3.org/TR/png-3/#9Filters."""
    if kind == 0:
        return line
    if kind == 2:
        return line + above
    if kind == 1:
        return np.add.accumulate(line.reshape(-1, channels), axis=0, dtype=np.uint8).ravel()
    out = np.zeros(len(line) + channels, np.int64)
    up = np.concatenate([np.zeros(channels, np.int64), above])
    for i in range(channels, len(out)):
        left, over, corner = out[i - channels], up[i], up[i - channels]
        if kind == 3:
            guess = (left + over) // 2
        else:
            estimate = left + over - corner
            guess = min((abs(estimate - v), n, v) for n, v in enumerate((left, over, corner)))[2]
        out[i] = (line[i - channels] + guess) % 256
    return out[channels:].astype(np.uint8)


def color(text: str) -> tuple[int, ...]:
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize("width", [390, 800, 1200])
def test_everything_fits(chromium: str, tmp_path: Path, width: int) -> None:
    """In a frame, as a window of Chromium is never narrower than 500 pixels."""
    page = tmp_path / "frame.html"
    inner = escape(render_page(FULL).replace("</body>", f"{_PROBE}</body>"))
    page.write_text(f'<title></title><iframe style="border:0;width:{width}px;height:900px" srcdoc="{inner}"></iframe>')
    found = re.search(
        r"width=(\d+) scroll=(\d+) shown=(\d+) wide=\[(.*?)\] cut=\[(.*?)\] small=\[(.*?)\]",
        run(chromium, page, 1300, "--dump-dom"),
    )
    assert found is not None
    assert found.groups() == (str(width), str(width), "8", "", "", "")


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_are_drawn(chromium: str, tmp_path: Path, width: int, dark: bool) -> None:
    page, image = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render_page(FULL), encoding="utf-8")
    run(chromium, page, width, f"--screenshot={image}", dark=dark)
    drawn = pixels(image)[..., :3]
    assert drawn.shape == (1000, width, 3)
    scheme, other = (DARK, LIGHT) if dark else (LIGHT, DARK)
    assert tuple(drawn[2, 2]) == color(scheme["page"])
    counts = {role: int((drawn == color(scheme[role])).all(axis=2).sum()) for role in ("page", "card", "body", "text")}
    assert all(count > 100 for count in counts.values()), counts
    assert not (drawn == color(other["page"])).all(axis=2).any()
