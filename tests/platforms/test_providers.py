from __future__ import annotations

import json
import subprocess
import sys
import types

import numpy as np
import pytest

from flashhead_edge.platforms import provider_probe, providers
from flashhead_edge.platforms.probe_model import SIZE, _varint, probe_model
from flashhead_edge.platforms.providers import ProviderFacts, provider_facts, try_provider, without_folders

CUDA_LOG = (
    "\x1b[1;31m2026-01-01 00:00:00.0 [E:onnxruntime:Default, provider_bridge_ort.cc:1, TryGetProviderInfo_CUDA] "
    "/home/someone/onnxruntime/core/session/provider_bridge_ort.cc:1 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/home/someone/.venv/lib/libonnxruntime_providers_cuda.so with error: libcublasLt.so.12: cannot open\n"
)


@pytest.fixture
def probe(monkeypatch):
    """Probe processes that end as the test wants."""

    def ends(stdout="", stderr="", returncode=0):
        done = subprocess.CompletedProcess([], returncode, stdout, stderr)
        monkeypatch.setattr(providers.subprocess, "run", lambda *_, **__: done)

    return ends


def test_the_model_is_valid_onnx():
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(probe_model()), full_check=True)


def test_the_model_computes():
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(probe_model(), providers=["CPUExecutionProvider"])
    x = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x @ x + x)


@pytest.mark.parametrize(("value", "encoded"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\1"), (300, b"\xac\2")])
def test_numbers_in_protobuf(value, encoded):
    assert _varint(value) == encoded


def test_the_cpu_provider_of_this_machine_loads():
    pytest.importorskip("onnxruntime")
    facts = {item.name: item for item in provider_facts()}
    assert facts["CPUExecutionProvider"] == ProviderFacts("CPUExecutionProvider", True)


def test_a_provider_that_is_not_there_does_not_load():
    pytest.importorskip("onnxruntime")
    found = try_provider("NoSuchExecutionProvider")
    assert found.loads is False
    assert found.reason


def test_a_remote_provider_is_not_tried(monkeypatch):
    monkeypatch.setattr(providers.subprocess, "run", lambda *_, **__: pytest.fail("tried"))
    assert try_provider("AzureExecutionProvider").loads is None


def test_a_crash_is_a_reason(probe):
    probe(returncode=-11)
    assert try_provider("CUDAExecutionProvider").reason == "the process was ended by SIGSEGV"


def test_a_failure_without_a_report_gives_its_last_line(probe):
    probe(stderr="Traceback\nModuleNotFoundError: No module named 'onnxruntime'\n", returncode=1)
    assert provider_facts() == ()
    assert try_provider("CPUExecutionProvider").reason == "ModuleNotFoundError: No module named 'onnxruntime'"
    probe(returncode=3)
    assert try_provider("CPUExecutionProvider").reason == "the process ended with status 3"


def test_the_logged_reason_is_told_without_folders(probe):
    probe('\n{"loads": false, "reason": "a session on CPUExecutionProvider"}\n', CUDA_LOG)
    assert try_provider("CUDAExecutionProvider").reason == (
        "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.12: cannot open"
    )


def test_a_provider_that_prints_does_not_hide_the_report(probe):
    probe('loading...\n{"loads": true, "reason": null}\n')
    assert try_provider("CUDAExecutionProvider").loads is True


def test_a_provider_that_hangs_is_ended(monkeypatch):
    def run(command, **_):
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(providers.subprocess, "run", run)
    assert "did not answer" in try_provider("CUDAExecutionProvider").reason


def test_folders_are_cut_from_messages():
    assert without_folders("cannot open /usr/lib/x/y.so: no") == "cannot open y.so: no"
    assert without_folders("1/2 of a/b") == "1/2 of a/b"


def test_the_probe_in_this_process(capsys):
    pytest.importorskip("onnxruntime")
    assert provider_probe.probe("CPUExecutionProvider") == {"loads": True, "reason": None}
    provider_probe.main(["NoSuchExecutionProvider"])
    assert json.loads(capsys.readouterr().out)["loads"] is False
    provider_probe.main(["--list"])
    assert "CPUExecutionProvider" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda *_: [np.zeros((SIZE, SIZE), np.float32)], "wrong result"),
        (lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel image")), "RuntimeError: no kernel image"),
    ],
    ids=["wrong result", "exception"],
)
def test_a_provider_that_opens_but_does_not_compute(monkeypatch, run, says):
    session = types.SimpleNamespace(run=run)
    monkeypatch.setattr("flashhead_edge.runtimes.session.open_session", lambda *_, **__: session)
    report = provider_probe.probe("CUDAExecutionProvider")
    assert report["loads"] is False
    assert says in report["reason"]


def test_probe_process_lists_the_providers():
    onnxruntime = pytest.importorskip("onnxruntime")
    command = [sys.executable, "-m", "flashhead_edge.platforms.provider_probe", "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in onnxruntime.get_available_providers())
