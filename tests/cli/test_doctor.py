from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flashhead_edge.cli import main
from flashhead_edge.platforms.overrides import FACTS, PREFIX

ROOT = Path(__file__).resolve().parents[2]
JSON_KEYS = {
    "ok",
    "host",
    "jetson",
    "nvidia",
    "packages",
    "onnxruntime_cuda",
    "providers",
    "overridden",
    "problems",
    "recommendation",
    "platform",
    "native",
}
BOARD = {
    "FLASHHEAD_EDGE_JETSON_MODEL": "NVIDIA Jetson Orin Nano Developer Kit",
    "FLASHHEAD_EDGE_JETSON_COMPATIBLE": "p3768-0000+p3767-0005,tegra234",
    "FLASHHEAD_EDGE_L4T": "36.4.3",
    "FLASHHEAD_EDGE_POWER_MODE": "15W",
    "FLASHHEAD_EDGE_PACKAGES": "onnxruntime=1.20.0,tensorrt=11.4.1",
    "FLASHHEAD_EDGE_ONNXRUNTIME_CUDA": "12",
    "FLASHHEAD_EDGE_PROVIDERS": "CPUExecutionProvider",
    "FLASHHEAD_EDGE_MEMORY_BYTES": "8000000000",
    "FLASHHEAD_EDGE_GPU_NAME": "Orin",
    "FLASHHEAD_EDGE_CUDA_VERSION": "12.6",
}


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch):
    for name in FACTS:
        monkeypatch.delenv(PREFIX + name, raising=False)


def run(*arguments, env=None):
    return CliRunner().invoke(main, ["doctor", *arguments], env=env)


def test_json_is_all_of_stdout():
    result = run("--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report.keys() == JSON_KEYS
    assert report["overridden"] == {}
    assert {"name": "CPUExecutionProvider", "loads": True, "reason": None} in report["providers"]


def test_nothing_names_this_machine():
    secrets = {socket.gethostname(), str(Path.home()), sys.prefix, str(ROOT)} - {"", "/"}
    for result in (run(), run("--json")):
        assert not [text for text in secrets if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", result.stdout)]


def test_text_ends_with_what_to_install():
    result = run(env={**BOARD})
    assert result.exit_code == 0
    end = result.stdout[result.stdout.index("Best here:") :]
    assert "onnxruntime on CUDAExecutionProvider" in end
    assert "pip uninstall -y onnxruntime\n" in end
    assert "pip install onnxruntime-gpu --index-url" in end


def test_text_marks_what_is_overridden():
    lines = run(env={**BOARD}).stdout.splitlines()
    marked = {line.split("  ")[0] for line in lines if "[overridden by FLASHHEAD_EDGE_" in line}
    assert {
        "memory",
        "jetson",
        "system on a chip",
        "L4T",
        "power mode",
        "packages",
        "GPU",
        "its CUDA",
        "built for CUDA",
    } <= marked
    assert "JetPack" not in marked  # it follows from the L4T release
    assert any(line.startswith("JetPack") and "6.2 (by its L4T release)" in line for line in lines)
    assert any(line.startswith("system on a chip") and "tegra234, compute capability 8.7" in line for line in lines)


def test_text_tells_problems_in_full():
    text = run(env={**BOARD}).stdout
    assert "Error: This TensorRT is not the one of JetPack 6.2." in text
    for part in ("  found: tensorrt 11.4.1", "  expected: TensorRT 10.x", "  what to do: pip uninstall tensorrt"):
        assert part in text


def test_json_of_a_board():
    report = json.loads(run("--json", env={**BOARD}).stdout)
    assert report["ok"] is False
    assert report["jetson"]["jetpack"] == "6.2"
    assert report["overridden"]["jetson.l4t"] == "FLASHHEAD_EDGE_L4T"
    assert {"severity", "message", "found", "expected", "hint"} == report["problems"][0].keys()
    assert report["recommendation"]["provider"] == "CUDAExecutionProvider"


def test_a_device_without_problems_says_so():
    env = {
        "FLASHHEAD_EDGE_JETSON_MODEL": "none",
        "FLASHHEAD_EDGE_GPU_NAME": "none",
        "FLASHHEAD_EDGE_DRIVER_VERSION": "none",
        "FLASHHEAD_EDGE_PACKAGES": "onnxruntime=1.20.0",
        "FLASHHEAD_EDGE_PROVIDERS": "CPUExecutionProvider",
    }
    text = run(env=env).stdout
    assert "No problems found." in text
    assert text.endswith("It is installed and works.\n")


def test_providers_need_not_be_tried(monkeypatch):
    monkeypatch.setattr("flashhead_edge.platforms.detection.provider_facts", lambda: pytest.fail("tried"))
    assert json.loads(run("--no-providers", "--json").stdout)["providers"] is None
    assert re.search(r"providers +not tried", run("--no-providers").stdout)


def test_no_provider_at_all():
    result = run(env={"FLASHHEAD_EDGE_PROVIDERS": "none", "FLASHHEAD_EDGE_PACKAGES": "none"})
    assert re.search(r"providers +none", result.stdout)
    assert "Error: ONNX Runtime is not installed" in result.stdout


def test_a_wrong_override_is_wrong_use():
    result = run("--json", env={"FLASHHEAD_EDGE_L4T": "thirty"})
    assert result.exit_code == 2
    assert result.stdout == ""
    for part in ("FLASHHEAD_EDGE_L4T", "found: thirty", "expected: a release such as 36.4.3", "what to do"):
        assert part in result.stderr


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="runs in a source tree")
def test_the_page_names_every_variable_and_key():
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [name for name in FACTS if f"`{PREFIX}{name}`" not in page] == []
    assert [key for key in JSON_KEYS if f"`{key}`" not in page] == []
