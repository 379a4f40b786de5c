from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flashhead_edge.platforms import host
from flashhead_edge.platforms.host import CpuInfo, host_facts, parse_cpuinfo

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model\t\t: 2
model name\t: AMD EPYC
flags\t\t: fpu sse2 fma avx2 avx512f avx512_vnni hypervisor

processor\t: 1
model name\t: something else
flags\t\t: fpu
"""
ARM_BOARD = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid asimddp
CPU part\t: 0xd0b

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def test_x86_cpuinfo():
    assert parse_cpuinfo(X86) == CpuInfo("AMD EPYC", ("avx2", "fma", "avx512f", "avx512_vnni"))


def test_arm_cpuinfo():
    assert parse_cpuinfo(ARM_BOARD) == CpuInfo("Raspberry Pi 5 Model B Rev 1.0", ("asimd", "asimddp"))


@pytest.mark.parametrize("text", ["", "processor : 0\nmodel : 2\n", "no colon\n"], ids=["empty", "number", "garbage"])
def test_cpuinfo_without_a_model(text):
    assert parse_cpuinfo(text) == CpuInfo(None, ())


def test_facts_of_this_machine():
    facts = host_facts()
    assert facts.cpu_model
    assert facts.architecture == platform.machine()
    assert 1 <= facts.logical_cores <= (os.cpu_count() or 1)
    assert facts.memory_bytes is None or facts.memory_bytes > 1 << 28
    assert facts.python == platform.python_version()
    assert facts.packages["numpy"]


def test_facts_are_json_and_name_no_machine_or_path():
    facts = host_facts().as_dict()
    text = json.dumps(facts)
    assert json.loads(text) == facts
    assert str(Path.home()) not in text or Path.home() == Path("/")
    name = socket.gethostname()
    assert not name or name not in facts.values()


def test_system_files_may_be_missing(monkeypatch, tmp_path):
    for name in ("_CPUINFO", "_MEMINFO", "_OS_RELEASE"):
        monkeypatch.setattr(host, name, tmp_path / "missing")
    facts = host_facts()
    assert facts.cpu_model
    assert facts.isa_features == ()
    assert facts.os.startswith(platform.system())


def test_packages_that_are_not_installed_are_left_out(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime_gpu-1.2.3.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert host_facts().packages == {"onnxruntime": "1.2.3"}


def test_looking_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from flashhead_edge.platforms.host import host_facts\n"
        "host_facts()\n"
        "heavy = {'numpy', 'onnxruntime', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
