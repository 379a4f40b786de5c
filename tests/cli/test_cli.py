from __future__ import annotations

import errno
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flashhead_edge._version import __version__
from flashhead_edge.bundle import Bundle
from flashhead_edge.cli import group, main
from flashhead_edge.cli.progress import StageProgress
from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.generator import Generator
from tests.tiny_bundle import write_bundle

JSON_KEYS = {
    "text",
    "token_ids",
    "logprobs",
    "tokens_per_second",
    "time_to_first_token_ms",
    "top_logprobs",
    "drafted_tokens",
    "accepted_drafts",
    "recall",
    "runtime_reason",
    "runtime",
    "providers",
    "finish_reason",
    "head",
    "prompt_tokens",
    "peak_rss_bytes",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def run(*arguments, **options):
    return CliRunner().invoke(main, list(arguments), **options)


def run_program(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "flashhead_edge", *arguments], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def fails(monkeypatch):
    """A command that raises whatever the test wants."""

    def command(error):
        @click.command("export")
        def export_command():
            raise error

        monkeypatch.setattr(group.LazyGroup, "get_command", lambda *_: export_command)

    return command


def test_help_lists_every_command_without_importing_them():
    program = (
        "import sys\n"
        "from flashhead_edge.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'numpy', 'onnxruntime', 'tokenizers', 'torch', 'transformers', 'onnx', 'jinja2', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, entry in group.COMMANDS.items():
        assert name in done.stdout
        assert entry.summary in done.stdout


def test_help_is_fast():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert run_program("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("name", group.COMMANDS)
def test_every_command_in_the_table_exists_and_says_the_same_of_itself(name):
    module, _, attribute = group.COMMANDS[name].target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.name == name
    assert command.get_short_help_str(200) == group.COMMANDS[name].summary


def test_version():
    assert run("--version").output == f"flashhead-edge, version {__version__}\n"


def test_module_is_the_command():
    done = run_program("--version")
    assert (done.returncode, done.stdout) == (0, f"flashhead-edge, version {__version__}\n")


def test_unknown_command_is_wrong_use_with_a_guess():
    result = run("genrate")
    assert result.exit_code == 2
    assert "did you mean 'generate'" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--no-such-option"], ["generate"], ["generate", "x", "y", "--head", "none"]], ids=" ".join
)
def test_wrong_use(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OptionError("Wrong.", found=3, expected=4, hint="use 4"), 2),
        (BundleError("Damaged.", hint="copy it"), 1),
        (PermissionError(errno.EACCES, "Permission denied", "/bundle"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_messages_and_exit_codes(fails, error, code):
    fails(error)
    result = run("export")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == f"Error: {error}\n"


def test_verbose_shows_the_traceback(fails):
    fails(BundleError("Damaged."))
    result = run("-v", "export")
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("Error: Damaged.\n")


def test_bugs_keep_their_traceback(fails):
    fails(ZeroDivisionError())
    assert isinstance(run("export").exception, ZeroDivisionError)


def test_interrupt_exits_with_130(fails):
    fails(KeyboardInterrupt())
    result = run("export")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_generate_prints_the_text(bundle):
    result = run("generate", bundle, "hello", "--max-new-tokens", "5")
    assert result.exit_code == 0
    report = json.loads(run("generate", bundle, "hello", "--max-new-tokens", "5", "--json").stdout)
    assert result.stdout == report["text"] + "\n"
    assert result.stderr == ""


def test_generate_json_is_all_of_stdout(bundle):
    result = run("generate", bundle, "hello", "--max-new-tokens", "5", "--json")
    report = json.loads(result.stdout)
    assert report.keys() == JSON_KEYS
    assert report["logprobs"] is None
    assert report["head"] == "two-stage"
    assert report["runtime"] == "onnxruntime"
    assert report["providers"] == ["CPUExecutionProvider"]
    assert report["finish_reason"] == "length"
    assert len(report["token_ids"]) == 5
    assert report["peak_rss_bytes"] > 1_000_000


def test_generate_options_reach_the_generator(bundle):
    options = {"max_new_tokens": 6, "temperature": 1.5, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 3}
    written = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    switches = ["--head", "dense", "--threads", "1", "--chat", "--logprobs", "--json"]
    result = run("generate", bundle, "hello", *written, *switches)
    generator = Generator(Bundle.open(bundle), head="dense", threads=1)
    expected = generator.generate("hello", chat=True, logprobs=True, **options)
    report = json.loads(result.stdout)
    assert report["token_ids"] == list(expected.token_ids)
    assert report["logprobs"] == pytest.approx(expected.logprobs, abs=1e-5)
    assert report["head"] == "dense"


def test_generate_stops(bundle):
    text = json.loads(run("generate", bundle, "hello", "--max-new-tokens", "8", "--json").stdout)["text"]
    stopped = run("generate", bundle, "hello", "--max-new-tokens", "8", "--stop", "none", "--stop", text[2], "--json")
    report = json.loads(stopped.stdout)
    assert report["text"] == text[: text.index(text[2])]
    assert report["finish_reason"] == "stop"


def test_generate_reads_the_prompt_from_stdin(bundle):
    arguments = ["--max-new-tokens", "5"]
    piped = run("generate", bundle, "-", *arguments, input="hello")
    assert piped.stdout == run("generate", bundle, "hello", *arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--top-k", "5"], 2, "Greedy decoding ignores"),
        (["--max-new-tokens", "1000"], 2, "context"),
        (["--threads", "0"], 2, "threads"),
    ],
    ids=["filters without temperature", "too long", "no threads"],
)
def test_generate_refuses(bundle, arguments, code, says):
    result = run("generate", bundle, "hello", *arguments, "--json")
    assert result.exit_code == code
    assert says in result.stderr
    assert result.stdout == ""


def test_generate_without_a_bundle(tmp_path):
    result = run("generate", str(tmp_path), "hello")
    assert result.exit_code == 1
    assert "is not a bundle" in result.stderr


def test_verbose_generate_reports_timings_on_stderr(bundle):
    result = run("-v", "generate", bundle, "hello", "--max-new-tokens", "5")
    assert "5 new (length)" in result.stderr
    assert "tokens/s" in result.stderr


def test_interrupted_generate_prints_what_there_is(bundle, monkeypatch):
    from flashhead_edge.runtimes.decoder import Decoder

    step, steps = Decoder.step, []

    def interrupted(self, input_ids, *, scored=1, greedy=False):
        steps.append(input_ids)
        if len(steps) > 3:
            raise KeyboardInterrupt
        return step(self, input_ids, greedy=greedy)

    monkeypatch.setattr(Decoder, "step", interrupted)
    result = run("generate", bundle, "hello", "--json")
    assert result.exit_code == 130
    report = json.loads(result.stdout)
    assert report["finish_reason"] == "interrupted"
    assert len(report["token_ids"]) == 3


def test_ctrl_c_ends_the_program(bundle):
    # The prompt is awaited on stdin, so the signal finds the program at a known place.
    command = [sys.executable, "-m", "flashhead_edge", "generate", bundle, "-"]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: "onnxruntime" in maps_of(program.pid))
    time.sleep(0.3)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert program.returncode == 130
    assert out == b""
    assert b"Traceback" not in err


def maps_of(pid):
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        pytest.skip("needs /proc")


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_reader_that_leaves_early_is_no_error(bundle):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "flashhead_edge", "generate", bundle, "hello"]
    with os.fdopen(writer) as out:
        done = subprocess.run(
            [*command, "--max-new-tokens", "9"], stdout=out, stderr=subprocess.PIPE, check=False, text=True
        )
    assert "Traceback" not in done.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_draws_a_bar_for_each_stage_on_a_terminal():
    file = Terminal()
    with StageProgress(file) as progress:
        for stage in ("states", "clustering"):
            for done in range(5):
                progress(stage, done, 4)
    text = file.getvalue()
    assert "states" in text
    assert "clustering" in text
    assert text.count("100%") == 2


def test_progress_is_a_line_for_each_stage_elsewhere():
    file = io.StringIO()
    with StageProgress(file) as progress:
        progress("states", 1, 3)
        progress("states", 3, 3)
        progress("empty", 0, 0)
        progress("unfinished", 0, 10)
    lines = file.getvalue().splitlines()
    assert [line.split(" ... ")[0] for line in lines] == ["states", "empty", "unfinished"]
    assert all(line.endswith(" s") for line in lines)


def test_progress_ends_its_line_on_an_error():
    file = io.StringIO()
    progress = StageProgress(file)
    progress("states", 1, 3)
    progress.__exit__(BundleError, BundleError("Damaged."), None)
    assert file.getvalue() == "states ... stopped\n"


def test_quiet_progress_is_silent():
    file = io.StringIO()
    with StageProgress(file, quiet=True) as progress:
        progress("states", 3, 3)
    assert file.getvalue() == ""
