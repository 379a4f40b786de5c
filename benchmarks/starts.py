"""From the start of a process to its first token, and its memory: ``python -m benchmarks.starts MODEL=BUNDLE ...``.

Every round starts ``flashhead-edge generate`` once for each bundle, with the token table and without it, and
``llama-completion`` with the same file, prompt and number of tokens, once with the context that it takes by itself and
once with a small one, whose cache holds little more than the text; our cache grows with the text. Files lie in the page
cache. A time ends with the process, so the first token comes sooner still. The result is ``results/starts.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.models import RESULTS, model_file
from flashhead_edge import Bundle, layout
from flashhead_edge.files import write_text
from flashhead_edge.platforms.host import host_facts

ROUNDS, THREADS, LONG = 9, 2, 128
#: Positions of a context in which the longer text has room.
SMALL = 256
PROMPT = "The capital of France is"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", metavar="MODEL=BUNDLE")
    parser.add_argument("--llama-completion", type=Path, help="the program; left out without it")
    arguments = parser.parse_args()
    rows = []
    for model, path in (text.split("=", 1) for text in arguments.bundles):
        bundle = Bundle.open(Path(path), verify=True)  # which also brings the files into the page cache
        with tempfile.TemporaryDirectory(dir=bundle.path.parent) as scratch:
            bare = without_table(bundle, Path(scratch))
            commands = {"token table": generate(bundle.path), "tokenizer.json": generate(bare)}
            if arguments.llama_completion is not None:
                commands["llama.cpp"] = llama(arguments.llama_completion, model_file(model))
                commands[f"llama.cpp, context {SMALL}"] = llama(
                    arguments.llama_completion, model_file(model), "-c", str(SMALL)
                )
            rows += measured(model, commands)
    facts = {"rounds": ROUNDS, "threads": THREADS, "new_tokens": LONG, "machine": host_facts().as_dict()}
    write_text(RESULTS / "starts.json", json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    for row in rows:
        print(row)


def measured(model: str, commands: dict[str, list[str]]) -> list[dict[str, object]]:
    """A row for each command."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(run([*command, "1"])[0])
    return [
        {
            "model": model,
            "start": name,
            "seconds_p50": statistics.median(times[name]),
            "seconds_min": min(times[name]),
            "seconds_max": max(times[name]),
            "peak_rss_bytes": run([*command, "1"])[1],
            "peak_rss_bytes_long": run([*command, str(LONG)])[1],
        }
        for name, command in commands.items()
    ]


def generate(bundle: Path) -> list[str]:
    """A command that makes as many tokens as the number that follows."""
    command = [sys.executable, "-m", "flashhead_edge", "generate", str(bundle), PROMPT, "--no-verify"]
    return [*command, "--temperature", "0", "--threads", str(THREADS), "--max-new-tokens"]


def llama(program: Path, file: Path, *options: str) -> list[str]:
    """The same of llama.cpp."""
    command = [str(program), "-m", str(file), "-p", PROMPT, "-no-cnv", "--temp", "0", "--no-warmup"]
    return [*command, "-t", str(THREADS), *options, "-n"]


def without_table(bundle: Bundle, folder: Path) -> Path:
    """The same bundle, as hard links, for which the library reads all of ``tokenizer.json``."""
    for name in bundle.manifest.files:
        if name != layout.TOKEN_TABLE:
            os.link(bundle.path / name, folder / name)
    shutil.copy(bundle.path / layout.MANIFEST, folder)
    manifest = json.loads((folder / layout.MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"][layout.TOKEN_TABLE]
    write_text(folder / layout.MANIFEST, json.dumps(manifest))
    return folder


def run(command: list[str]) -> tuple[float, int]:
    """Seconds of a process, and the most memory that it had resident, in bytes."""
    start = time.perf_counter()
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
