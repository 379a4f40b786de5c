"""Every kernel compiles for every target, in a process of its own: the interpreter is chosen for a whole process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flashhead_edge.errors import ExportError
from flashhead_edge.kernels.builds import BUILDS
from flashhead_edge.kernels.gpu_targets import GPU_TARGETS, PTX_OF_CUDA
from flashhead_edge.kernels.ptx import keep_parameters
from flashhead_edge.platforms.catalog import load_catalog


@pytest.mark.triton
def test_every_kernel_compiles_for_every_target(tmp_path):
    folder = tmp_path / "kernels"
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "flashhead_edge.kernels.compile", "-o", str(folder)]
    subprocess.run(command, env=environ, check=True)
    kernels = json.loads((folder / "kernels.json").read_text())["kernels"]
    assert {(item["build"], item["target"]) for item in kernels} == {
        (build.name, target.name) for build in BUILDS for target in GPU_TARGETS
    }
    limits = {target.name: target.ptx_version for target in GPU_TARGETS}
    for item in kernels:
        ptx = (folder / item["ptx"]["file"]).read_text()
        major, minor = re.search(r"^\.version (\d+)\.(\d+)", ptx, re.MULTILINE).groups()
        assert int(major) * 10 + int(minor) <= limits[item["target"]]
        assert len(re.search(r"\.entry \w+\(([^)]*)\)", ptx).group(1).split(",")) == len(item["parameters"])
        assert f".target {item['target']}" in ptx
        assert str(Path.cwd()) not in ptx
        assert item["spill_bytes"] == item["stack_bytes"] == 0
        assert item["registers"] <= 128
        assert item["shared_bytes"] <= 48 << 10
        for kind in ("ptx", "cubin"):
            content = (folder / item[kind]["file"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == item[kind]["sha256"]


def test_every_jetpack_with_our_python_accepts_the_ptx():
    limits = {target.capability: target.ptx_version for target in GPU_TARGETS}
    checked = set()
    for platform in load_catalog().platforms.values():
        for jetpack in platform.jetpacks:
            if not jetpack.cuda or jetpack.version.startswith("5."):  # Python 3.8
                continue
            capability = round(float(platform.compute_capability) * 10)
            cuda = tuple(int(part) for part in jetpack.cuda.split("."))
            assert limits[capability] <= PTX_OF_CUDA[cuda], (platform.name, jetpack.version)
            checked.add(capability)
    assert checked == {87, 110}


def test_parameters_that_are_used_are_not_dropped():
    ptx = ".visible .entry k(\n.param .u64 k_param_0,\n.param .u64 k_param_1\n)\n{ ld.param.b64 %r, [k_param_1]; }"
    assert keep_parameters(ptx, 2).split() == ptx.split()
    with pytest.raises(ExportError, match="scratch"):
        keep_parameters(ptx, 1)
    assert "k_param_1" not in keep_parameters(ptx.replace("ld.param.b64 %r, [k_param_1];", ""), 1)
