from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flashhead_edge.bench.load import HEAVY_SHARE, LoadMeter, is_heavy

SPIN = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_others_are_counted_and_we_are_not():
    quiet = LoadMeter()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    alone = quiet.other_load()
    with subprocess.Popen([sys.executable, "-c", SPIN.format(3)]) as other:
        time.sleep(0.5)
        meter = LoadMeter()
        time.sleep(1)
        beside = meter.other_load()
        other.kill()
    assert beside > 0.5
    assert beside > alone + 0.2 or alone > 0.7  # a machine that others use all of shows them both times


def test_children_that_ended_are_ours(tmp_path):
    meter = LoadMeter()
    subprocess.run([sys.executable, "-c", SPIN.format(0.5)], check=True)
    own = os.times()
    assert own.children_user + own.children_system > 0.3
    assert meter.other_load() < (os.cpu_count() or 1)


def test_a_system_that_does_not_say_is_taken_as_idle(tmp_path):
    assert LoadMeter(tmp_path).other_load() == 0.0
    assert not is_heavy(0.0)
    assert is_heavy(2 * HEAVY_SHARE * (os.cpu_count() or 1))


def test_ticks_are_read_as_the_kernel_writes_them(tmp_path):
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc" / "stat"
    stat.write_text("cpu  100 0 100 1000 50 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    meter = LoadMeter(tmp_path)
    time.sleep(0.2)
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu  {100 + ticks} 0 100 9000 90 0 0 0 0 0\n")
    assert 1 < meter.other_load() < 1 / 0.2
