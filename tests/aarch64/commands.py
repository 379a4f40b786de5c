"""The commands on a device, with nothing but what ``pip install 'flashhead-edge[cpu]'`` gives: no pytest, no onnx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROMPT, TOKENS = "The capital of France is", 24


def report(*arguments: str) -> Any:
    """What a command prints with --json."""
    command = [Path(sys.executable).with_name("flashhead-edge"), *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def check(what: str, found: object, expected: object) -> None:
    """End with a message if they differ."""
    if found != expected:
        sys.exit(f"{what}: found {found!r}, expected {expected!r}")


def main(bundle: str, expected: str) -> None:
    """Compare with the texts that the machine made which wrote the bundle."""
    doctor = report("doctor")
    check("architecture", doctor["host"]["architecture"], "aarch64")
    check("instructions", doctor["host"]["isa_features"], ["asimd", "asimddp"])
    check("Python", doctor["host"]["python"].rpartition(".")[0], "3.11")
    check("kernels of the native library", doctor["native"]["kernels"], "neon")
    check("problems", (doctor["ok"], doctor["problems"]), (True, []))
    loads = {provider["name"]: provider["loads"] for provider in doctor["providers"]}
    check("CPU provider", loads["CPUExecutionProvider"], True)
    chosen = [choice["name"] for choice in report("runtimes", bundle)["runtimes"] if choice["chosen"]]
    check("runtime", chosen, ["onnxruntime-cpu"])
    check("inspected vocabulary", report("inspect", bundle)["vocab_size"], 259)
    for head, token_ids in json.loads(Path(expected).read_text()).items():
        text = report("generate", bundle, PROMPT, "--max-new-tokens", str(TOKENS), "--head", head)
        check(f"tokens of the {head} head", text["token_ids"], token_ids)
    print(f"doctor, runtimes, inspect and generate: as expected on {doctor['host']['os']}, aarch64")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
