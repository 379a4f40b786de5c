"""onnxruntime-genai runs for real; llama.cpp's program is stood for by one that prints what it prints."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from flashhead_edge.bench.competitors import llama_bench, parse_competitor, run_competitor
from flashhead_edge.bench.options import Competitor, Test
from flashhead_edge.errors import OptionError, RuntimeUnavailableError

# Rows of llama-bench -o json (llama.cpp b1-...), shortened to what is read of them.
LLAMA_BENCH = """#!{python}
import json, sys, time
time.sleep(0.1)
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert given["-r"] == "1" and given["-o"] == "json", given
assert given["-m"].endswith("model.gguf"), given
common = {{"build_commit": "abc1234", "model_type": "llama 135M Q4_1", "n_threads": int(given["-t"])}}
rows = [{{**common, "n_prompt": int(n), "n_gen": 0, "avg_ts": 500.0}} for n in given["-p"].split(",") if n != "0"]
rows += [{{**common, "n_prompt": 0, "n_gen": int(n), "avg_ts": 50.0}} for n in given["-n"].split(",") if n != "0"]
print(json.dumps(rows))
"""


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "build" / "bin" / "llama-bench"
    file.parent.mkdir(parents=True)
    file.write_text(LLAMA_BENCH.format(python=sys.executable))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_llama_cpp(program, tmp_path):
    competitor = parse_competitor(f"llama.cpp={tmp_path}")
    assert llama_bench(tmp_path) == llama_bench(program) == program
    outcome = run_competitor(competitor, [Test("pp", 64), Test("tg", 8)], threads=2, gguf=tmp_path / "model.gguf")
    assert outcome.tokens_per_second == {"pp64": 500.0, "tg8": 50.0}
    assert outcome.runtime == "llama.cpp abc1234, llama 135M Q4_1"
    assert 1 << 20 < outcome.peak_rss_bytes < 200 << 20  # the program's, not what the test's process has


def test_a_program_that_fails_is_quoted(program, tmp_path):
    with pytest.raises(RuntimeUnavailableError, match="AssertionError"):
        run_competitor(Competitor("llama.cpp", program), [Test("tg", 8)], threads=2, gguf=tmp_path / "other")


def test_onnxruntime_genai(tiny_folder, tmp_path):
    pytest.importorskip("onnxruntime_genai")
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    model = tmp_path / "model"
    command = [*builder, "-i", str(tiny_folder("llama")), "-o", str(model), "-p", "fp32", "-e", "cpu"]
    subprocess.run([*command, "-c", str(tmp_path / "cache")], check=True, capture_output=True)
    competitor = parse_competitor(f"onnxruntime-genai={model}")
    outcome = run_competitor(competitor, [Test("pp", 16), Test("tg", 8)], threads=1, gguf=None)
    assert set(outcome.tokens_per_second) == {"pp16", "tg8"}
    assert min(outcome.tokens_per_second.values()) > 0
    assert outcome.runtime.startswith("onnxruntime-genai 0.")


@pytest.mark.parametrize(
    ("text", "message"),
    [("llama.cpp", "NAME=PATH"), ("llama=/", "llama.cpp"), ("llama.cpp=/does/not/exist", "does not exist")],
)
def test_what_is_no_program_is_refused(text, message):
    with pytest.raises(OptionError, match=message):
        parse_competitor(text)


def test_a_folder_without_the_program(tmp_path):
    with pytest.raises(OptionError, match="no llama-bench"):
        llama_bench(tmp_path)
