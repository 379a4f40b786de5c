from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from flashhead_edge.platforms.nvidia import GpuFacts, NvidiaFacts, ask_driver, nvidia_facts, parse_driver_version

VERSION_FILE = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    "GCC version:  gcc version 12.3.0\n"
)
OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder@host)\n"


class NVMLError(Exception):
    pass


class FakeNvml(types.ModuleType):
    """The part of nvidia-ml-py that is asked, with one GPU; names in ``fails`` raise."""

    NVMLError = NVMLError

    def __init__(self, fails=(), name="NVIDIA Test GPU"):
        super().__init__("pynvml")
        self.fails, self.name, self.stopped = fails, name, False

    def __getattribute__(self, attribute):
        if attribute.startswith("nvml") and attribute in object.__getattribute__(self, "fails"):

            def fail(*_):
                raise NVMLError("Not Supported")

            return fail
        return super().__getattribute__(attribute)

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlShutdown(self):  # noqa: N802
        self.stopped = True

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetName(self, _):  # noqa: N802
        return self.name

    def nvmlDeviceGetMemoryInfo(self, _):  # noqa: N802
        return types.SimpleNamespace(total=85899345920)

    def nvmlDeviceGetCudaComputeCapability(self, _):  # noqa: N802
        return 9, 0

    def nvmlSystemGetCudaDriverVersion(self):  # noqa: N802
        return 12060

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "550.54.15"


def test_what_the_driver_says():
    nvml = FakeNvml()
    gpu = GpuFacts("NVIDIA Test GPU", 85899345920, "9.0")
    assert ask_driver(nvml) == NvidiaFacts((gpu,), "550.54.15", "12.6")
    assert nvml.stopped


def test_older_releases_give_bytes():
    assert ask_driver(FakeNvml(name=b"NVIDIA Test GPU")).gpus[0].name == "NVIDIA Test GPU"


def test_what_a_gpu_does_not_say_is_unknown():
    facts = ask_driver(FakeNvml(fails=("nvmlDeviceGetMemoryInfo", "nvmlSystemGetCudaDriverVersion")))
    assert facts.gpus == (GpuFacts("NVIDIA Test GPU", None, "9.0"),)
    assert facts.cuda_version is None
    assert ask_driver(FakeNvml(fails=("nvmlDeviceGetHandleByIndex",))).gpus == (GpuFacts(),)


def test_a_missing_driver_is_a_fact():
    facts = ask_driver(FakeNvml(fails=("nvmlInit",)))
    assert facts == NvidiaFacts(unknown_because="NVML did not start: Not Supported")


def test_a_missing_package_is_a_fact(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    facts = nvidia_facts()
    assert facts.gpus == ()
    assert "nvidia-ml-py" in facts.unknown_because


def test_the_driver_of_this_machine_is_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert nvidia_facts().gpus[0].name == "NVIDIA Test GPU"
    assert nvidia_facts(Path("/")).as_dict()["gpus"][0]["compute_capability"] == "9.0"


def test_the_driver_is_not_asked_for_another_root(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(VERSION_FILE, encoding="utf-8")
    facts = nvidia_facts(tmp_path)
    assert facts.gpus == ()
    assert facts.driver_version == "550.54.15"


@pytest.mark.parametrize(
    ("text", "version"), [(VERSION_FILE, "550.54.15"), (OPEN_MODULE, "580.65.06"), ("", None), ("garbage", None)]
)
def test_driver_version(text, version):
    assert parse_driver_version(text) == version
