from __future__ import annotations

import contextlib
import sys

import pytest

from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.host import HostFacts
from flashhead_edge.platforms.jetson import JetsonFacts, PowerMode
from flashhead_edge.platforms.nvidia import GpuFacts, NvidiaFacts
from flashhead_edge.platforms.packages import (
    DISTRIBUTIONS,
    cuda_of_requirements,
    installed_onnx_runtimes,
    installed_packages,
    onnxruntime_cuda,
)
from flashhead_edge.platforms.problems import find_problems
from flashhead_edge.platforms.providers import ProviderFacts
from flashhead_edge.platforms.recommendation import recommend

CPU, CUDA = ProviderFacts("CPUExecutionProvider", True), ProviderFacts("CUDAExecutionProvider", True)
GPU = NvidiaFacts((GpuFacts("GPU"),), "550.54.15", "12.6")
JETPACK_6 = JetsonFacts(model="board", l4t="36.4.3", jetpack="6.2", jetpack_source="l4t")
JETPACK_7 = JetsonFacts(model="board", l4t="39.2.0", jetpack="7.2", jetpack_source="l4t")
JETPACK_5 = JetsonFacts(model="board", l4t="35.4.1", jetpack="5.1.2", jetpack_source="l4t")


def device(packages=None, python="3.11.7", **facts):
    host = HostFacts("cpu", "x86_64", 2, (), 1 << 33, "Linux", python, {})
    packages = {"onnxruntime": "1.20.0"} if packages is None else packages
    return DeviceFacts(host=host, packages=packages, **{"providers": (CPU,), **facts})


def messages(facts, severity=None):
    return [problem.message for problem in find_problems(facts) if severity in (None, problem.severity)]


def test_a_plain_computer_has_no_problems():
    assert find_problems(device()) == []


@pytest.mark.parametrize(
    ("facts", "severity", "says"),
    [
        (device({}), "error", "not installed"),
        (device({"onnxruntime": "1", "onnxruntime-gpu": "1"}, nvidia=GPU), "error", "over each other"),
        (device({"onnxruntime-gpu": "1"}), "warning", "no NVIDIA driver"),
        (device({"onnxruntime": "1", "vllm": "1"}), "warning", "vllm is installed"),
        (device({"onnxruntime": "1", "tensorrt-rtx": "1"}), "note", "no NVIDIA driver"),
        (device({"onnxruntime": "1", "onnxruntime-genai": "0.9"}, python="3.10.4"), "warning", "this Python"),
        (device({"onnxruntime-gpu": "1", "tensorrt": "11.4.1"}, jetson=JETPACK_6), "error", "JetPack 6.2"),
        (device({"onnxruntime-gpu": "1", "tensorrt": "10.3.0"}, jetson=JETPACK_5), "error", "JetPack 5.1.2"),
        (device({"onnxruntime-gpu": "1", "tensorrt": "11.4.1"}, jetson=JETPACK_7), "error", "JetPack 7.2"),
        (
            device({"onnxruntime-gpu": "1"}, nvidia=GPU, providers=(ProviderFacts(CUDA.name, False, "lib"), CPU)),
            "warning",
            "does not load",
        ),
        (device(providers=(ProviderFacts(CPU.name, False, "crash"),)), "error", "does not load"),
        (device(providers=()), "error", "is installed, but it does not load"),
        (device({"onnxruntime-gpu": "1"}, nvidia=GPU, onnxruntime_cuda="13"), "error", "newer CUDA"),
        (device(nvidia=GPU), "note", "CPU only"),
        (device(nvidia=NvidiaFacts((), "550.54", None, "no package")), "note", "nothing is known of its GPUs"),
        (device(jetson=JetsonFacts(model="board", l4t="36.9.9")), "note", "JetPack is not known"),
        (device(misspelt={"FLASHHEAD_EDGE_JETPAK": "FLASHHEAD_EDGE_JETPACK"}), "warning", "names no fact"),
    ],
)
def test_problems(facts, severity, says):
    assert any(says in message for message in messages(facts, severity))


def test_every_problem_says_what_was_found_expected_and_to_be_done():
    everything = device(
        {"onnxruntime": "1", "onnxruntime-gpu": "1", "tensorrt": "8.5", "onnxruntime-genai": "0.9"},
        python="3.10.1",
        jetson=JETPACK_6,
        providers=(ProviderFacts(CUDA.name, False),),
    )
    problems = find_problems(everything)
    assert [problem.severity for problem in problems] == ["error", "error", "warning", "warning"]
    assert all(problem.found and problem.expected and problem.hint for problem in problems)


@pytest.mark.parametrize(
    ("version", "jetson"),
    [
        ("10.3.0", JETPACK_6),
        ("10.16.1", JETPACK_7),
        ("8.5.2.2", JETPACK_5),
        ("11.4.1", JetsonFacts(model="board", jetpack="7.2.2", jetpack_source="dpkg")),
        ("11.4.1", None),
    ],
)
def test_tensorrt_that_fits(version, jetson):
    facts = device({"onnxruntime-gpu": "1", "tensorrt": version}, jetson=jetson, nvidia=GPU)
    assert messages(facts, "error") == []


def test_a_gpu_provider_that_does_not_load_without_a_gpu_is_told_once():
    facts = device({"onnxruntime-gpu": "1"}, providers=(ProviderFacts(CUDA.name, False, "no driver"), CPU))
    assert len(find_problems(facts)) == 1


def test_cuda_that_fits():
    facts = device({"onnxruntime-gpu": "1"}, nvidia=GPU, onnxruntime_cuda="12", providers=(CUDA, CPU))
    assert find_problems(facts) == []


def test_a_gpu_without_a_build_for_it_is_not_called_unused():
    assert find_problems(device(jetson=JETPACK_5)) == []


def test_a_gpu_that_a_provider_found_is_one():
    assert find_problems(device({"onnxruntime-gpu": "1"}, providers=(CUDA, CPU))) == []


@pytest.mark.parametrize(
    ("modes", "mode", "fastest"),
    [
        ({0: "15W", 1: "25W", 2: "MAXN_SUPER"}, PowerMode(0, "15W"), "nvpmodel -m 2"),
        ({0: "MAXN", 1: "MODE_15W"}, PowerMode(1, "MODE_15W"), "nvpmodel -m 0"),
        ({0: "MAXN", 3: "MAXN_SUPER"}, PowerMode(0, "MAXN"), "nvpmodel -m 3"),
    ],
)
def test_power_mode_that_limits(modes, mode, fastest):
    facts = device({"onnxruntime-gpu": "1"}, jetson=JetsonFacts(jetpack="6.2", power_mode=mode, power_modes=modes))
    (problem,) = find_problems(facts)
    assert fastest in problem.hint
    assert problem.severity == "note"


def test_power_mode_that_does_not_limit():
    jetson = JetsonFacts(jetpack="6.2", power_mode=PowerMode(2, "MAXN_SUPER"), power_modes={0: "15W", 2: "MAXN_SUPER"})
    assert find_problems(device({"onnxruntime-gpu": "1"}, jetson=jetson)) == []


@pytest.mark.parametrize(
    ("facts", "provider", "install"),
    [
        (device(), CPU.name, ()),
        (device(providers=None), CPU.name, ()),
        (device({}), CPU.name, ("pip install 'flashhead-edge[cpu]'",)),
        (
            device(nvidia=GPU),
            CUDA.name,
            ("pip uninstall -y onnxruntime", "pip install 'flashhead-edge[gpu]'"),
        ),
        (device({"onnxruntime-gpu": "1"}, nvidia=GPU, providers=(CUDA, CPU)), CUDA.name, ()),
        (
            device({"onnxruntime-gpu": "1"}, nvidia=GPU, providers=(CPU,)),
            CUDA.name,
            ("pip install 'flashhead-edge[gpu]'",),
        ),
        (
            device({"onnxruntime": "1", "onnxruntime-gpu": "1"}, nvidia=GPU, providers=(CUDA, CPU)),
            CUDA.name,
            ("pip uninstall -y onnxruntime onnxruntime-gpu", "pip install 'flashhead-edge[gpu]'"),
        ),
        (device({}, jetson=JETPACK_5), CPU.name, ("pip install 'flashhead-edge[cpu]'",)),
        (device({}, jetson=JetsonFacts(model="board")), CPU.name, ("pip install 'flashhead-edge[cpu]'",)),
    ],
)
def test_recommendation(facts, provider, install):
    found = recommend(facts)
    assert (found.provider, found.install) == (provider, install)
    assert found.reason


@pytest.mark.parametrize(("jetson", "index"), [(JETPACK_6, "jp6/cu126"), (JETPACK_7, "sbsa/cu130")])
def test_a_jetson_installs_from_the_index_of_its_builds(jetson, index):
    found = recommend(device({}, jetson=jetson))
    (first, second) = found.install
    assert found.provider == CUDA.name
    assert first == f"pip install onnxruntime-gpu --index-url https://pypi.jetson-ai-lab.io/{index}"
    assert "flashhead-edge" in second


def test_packages_by_any_of_their_distributions(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (
        first / "tensorrt_cu12-1.2.3.dist-info",
        first / "onnxruntime_gpu-1.2.3+local.dist-info",
        first / "vllm",
        second / "Tensorrt.CU12-9.dist-info",
    ):
        folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(first), str(tmp_path / "missing"), str(second)])
    assert installed_packages() == {"onnxruntime-gpu": "1.2.3+local", "tensorrt": "1.2.3"}


def test_versions_are_those_of_the_metadata():
    """Read by other means than ours, of what is installed here."""
    import importlib.metadata

    found = installed_packages()
    assert "onnxruntime" in found
    for name, version in found.items():
        versions = []
        for distribution in DISTRIBUTIONS[name]:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions.append(importlib.metadata.version(distribution))
        assert version == versions[0]


@pytest.mark.parametrize(
    ("requirements", "cuda"),
    [
        (["numpy>=1.21", 'nvidia-cuda-runtime~=13.0; extra == "cuda"'], "13"),
        (['nvidia-cuda-runtime-cu12~=12.0; extra == "cuda"'], "12"),
        (['nvidia-cuda-runtime-cu12 (~=12.0) ; extra == "cuda"'], "12"),
        (["numpy"], None),
        (["nvidia-cuda-runtime"], None),
    ],
)
def test_cuda_of_a_build(requirements, cuda):
    assert cuda_of_requirements(requirements) == cuda


def test_cuda_of_no_build(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert onnxruntime_cuda() is None


def test_cuda_of_an_installed_build(tmp_path, monkeypatch):
    folder = tmp_path / "onnxruntime_gpu-1.23.0.dist-info"
    folder.mkdir()
    requirement = 'Requires-Dist: nvidia-cuda-runtime-cu12~=12.0; extra == "cuda"'
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.23.0\n{requirement}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert onnxruntime_cuda() == "12"


def test_onnx_runtimes_are_told_from_what_builds_on_them():
    everything = dict.fromkeys(DISTRIBUTIONS, "1")
    assert "onnxruntime-genai" not in installed_onnx_runtimes(everything)
    assert {"onnxruntime", "onnxruntime-gpu"} <= set(installed_onnx_runtimes(everything))
