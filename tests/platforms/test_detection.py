from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flashhead_edge.errors import OptionError
from flashhead_edge.platforms.detection import detect
from flashhead_edge.platforms.jetson import PowerMode
from flashhead_edge.platforms.overrides import FACTS, PREFIX, read_overrides
from flashhead_edge.platforms.providers import ProviderFacts

BOARDS = Path(__file__).parent / "boards"


def board(name, environ=None):
    return detect(BOARDS / name, environ=environ or {}, try_providers=False)


@pytest.mark.parametrize("folder", sorted(BOARDS.iterdir()), ids=lambda folder: folder.name)
def test_every_board_names_a_public_listing(folder):
    assert "Public listing: https://" in (folder / "SOURCE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "model", "soc", "capability", "l4t", "jetpack"),
    [
        ("orin-nano-8gb", "NVIDIA Orin Nano Developer Kit", "tegra234", "8.7", "35.3.1", "5.1.1"),
        ("agx-orin", "NVIDIA Jetson AGX Orin Developer Kit", "tegra234", "8.7", "39.2.0", "7.2"),
        ("agx-thor", "NVIDIA Jetson AGX Thor Developer Kit", "tegra264", "11.0", "38.2.0", "7.0"),
        ("xavier-nx", "NVIDIA Jetson Xavier NX Developer Kit", "tegra194", "7.2", None, "5.1.6"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_boards(name, model, soc, capability, l4t, jetpack):
    facts = board(name)
    found = facts.jetson
    assert (found.model, found.soc, found.compute_capability) == (model, soc, capability)
    assert (found.l4t, found.jetpack) == (l4t, jetpack)
    assert facts.has_nvidia_gpu


def test_jetpack_comes_from_its_package_or_by_the_release():
    assert board("xavier-nx").jetson.jetpack_source == "dpkg"
    assert board("agx-thor").jetson.jetpack_source == "l4t"


def test_compatible_strings_are_split_at_their_ends():
    assert board("agx-thor").jetson.compatible == (
        "nvidia,p4071-0000+p3834-0008",
        "nvidia,p3834-0008",
        "nvidia,tegra264",
    )


def test_power_mode_and_memory_of_a_board():
    facts = board("xavier-nx")
    assert facts.jetson.power_mode == PowerMode(8, "MODE_20W_6CORE")
    assert facts.host.memory_bytes == 6996988 * 1024


def test_what_a_board_does_not_say_is_unknown():
    facts = board("orin-nano-8gb")
    assert facts.jetson.power_mode is None
    assert facts.jetson.tensorrt is None
    assert facts.host.memory_bytes is None


def test_an_empty_root_is_no_jetson(tmp_path):
    facts = detect(tmp_path, environ={}, try_providers=False)
    assert facts.jetson is None
    assert facts.providers is None
    assert not facts.has_nvidia_gpu
    assert tmp_path.parent.as_posix() not in json.dumps(facts.as_dict())


def test_an_arm_board_of_someone_else_is_no_jetson(tmp_path):
    tree = tmp_path / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (tree / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert detect(tmp_path, environ={}, try_providers=False).jetson is None


@pytest.mark.parametrize("name", [path.name for path in sorted(BOARDS.iterdir())])
def test_facts_are_json(name):
    facts = board(name, {"FLASHHEAD_EDGE_GPU_NAME": "GPU"}).as_dict()
    assert json.loads(json.dumps(facts)) == facts


def test_this_machine_names_no_machine_or_path():
    text = json.dumps(detect(environ={}, try_providers=False).as_dict())
    assert str(Path.home()) not in text or Path.home() == Path("/")
    assert f'"{socket.gethostname()}"' not in text


def test_detection_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from flashhead_edge.platforms.detection import detect\n"
        "detect(environ={}, try_providers=False)\n"
        "heavy = {'numpy', 'onnxruntime', 'torch', 'tensorrt'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


VALUES = {
    "CPU_MODEL": ("Some CPU", "host.cpu_model", "Some CPU"),
    "ARCHITECTURE": ("aarch64", "host.architecture", "aarch64"),
    "LOGICAL_CORES": ("6", "host.logical_cores", 6),
    "ISA_FEATURES": ("asimd, i8mm", "host.isa_features", ["asimd", "i8mm"]),
    "MEMORY_BYTES": ("8000000000", "host.memory_bytes", 8_000_000_000),
    "OS": ("Some Linux", "host.os", "Some Linux"),
    "PYTHON": ("3.10.12", "host.python", "3.10.12"),
    "JETSON_MODEL": ("Some Jetson", "jetson.model", "Some Jetson"),
    "JETSON_COMPATIBLE": ("p3767-0005,tegra234", "jetson.soc", "tegra234"),
    "L4T": ("36.4.3", "jetson.jetpack", "6.2"),
    "JETPACK": ("6.1", "jetson.jetpack", "6.1"),
    "JETSON_TENSORRT": ("10.3.0", "jetson.tensorrt", "10.3.0"),
    "POWER_MODE": ("15W", "jetson.power_mode.name", "15W"),
    "GPU_NAME": ("Some GPU", "nvidia.gpus.0.name", "Some GPU"),
    "GPU_MEMORY_BYTES": ("1", "nvidia.gpus.0.memory_bytes", 1),
    "GPU_COMPUTE_CAPABILITY": ("8.6", "nvidia.gpus.0.compute_capability", "8.6"),
    "DRIVER_VERSION": ("550.54.15", "nvidia.driver_version", "550.54.15"),
    "CUDA_VERSION": ("12.6", "nvidia.cuda_version", "12.6"),
    "PACKAGES": ("torch=2.5.1+cpu", "packages.torch", "2.5.1+cpu"),
    "ONNXRUNTIME_CUDA": ("12", "onnxruntime_cuda", "12"),
    "PROVIDERS": ("XExecutionProvider", "providers.0.name", "XExecutionProvider"),
}
WRONG = {
    "ARCHITECTURE": "x86-64!",
    "LOGICAL_CORES": "0",
    "MEMORY_BYTES": "8GB",
    "PYTHON": "three",
    "L4T": "R36",
    "JETPACK": "six",
    "JETSON_TENSORRT": "ten",
    "POWER_MODE": "15 W",
    "GPU_MEMORY_BYTES": "-1",
    "GPU_COMPUTE_CAPABILITY": "sm_87",
    "DRIVER_VERSION": "new",
    "CUDA_VERSION": "cu126",
    "PACKAGES": "onnxruntime",
    "ONNXRUNTIME_CUDA": "12.6",
    "PROVIDERS": "cuda",
}


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_can_be_overridden_and_is_marked(tmp_path, name):
    text, path, expected = VALUES[name]
    facts = detect(tmp_path, environ={PREFIX + name: text}, try_providers=False).as_dict()
    assert facts["overridden"] == {FACTS[name].path: PREFIX + name}
    value = facts
    for key in path.split("."):
        value = value[int(key) if isinstance(value, list) else key]
    assert value == expected


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_an_error_that_says_what_to_do(name):
    with pytest.raises(OptionError) as caught:
        read_overrides({PREFIX + name: WRONG[name]})
    assert caught.value.found == WRONG[name]
    assert caught.value.expected == FACTS[name].expected
    assert PREFIX + name in caught.value.message
    assert PREFIX + name in caught.value.hint


def test_an_empty_variable_is_not_set():
    assert read_overrides({"FLASHHEAD_EDGE_L4T": "", "FLASHHEAD_EDGE_OS": " "}) == {}


def test_none_takes_a_thing_away():
    facts = board(
        "agx-thor",
        {f"FLASHHEAD_EDGE_{name}": "none" for name in ("JETSON_MODEL", "GPU_NAME", "DRIVER_VERSION", "PACKAGES")},
    )
    assert facts.jetson is None
    assert facts.nvidia.gpus == ()
    assert facts.packages == {}
    assert not facts.has_nvidia_gpu


def test_no_provider_is_tried_where_they_are_given(monkeypatch):
    monkeypatch.setattr("flashhead_edge.platforms.detection.provider_facts", lambda: pytest.fail("tried"))
    facts = detect(environ={"FLASHHEAD_EDGE_PROVIDERS": "CPUExecutionProvider"})
    assert facts.providers == (ProviderFacts("CPUExecutionProvider", True),)


def test_an_overridden_release_brings_its_jetpack_even_against_the_package():
    jetson = board("xavier-nx", {"FLASHHEAD_EDGE_L4T": "35.4.1"}).jetson
    assert (jetson.l4t, jetson.jetpack, jetson.jetpack_source) == ("35.4.1", "5.1.2", "l4t")
    jetson = board("xavier-nx", {"FLASHHEAD_EDGE_L4T": "35.4.1", "FLASHHEAD_EDGE_JETPACK": "5.1"}).jetson
    assert (jetson.jetpack, jetson.jetpack_source) == ("5.1", "override")


def test_an_overridden_power_mode_keeps_its_number_where_the_board_names_it():
    jetson = board("xavier-nx", {"FLASHHEAD_EDGE_POWER_MODE": "MODE_20W_6CORE"}).jetson
    assert jetson.power_mode == PowerMode(8, "MODE_20W_6CORE")


def test_a_misspelt_variable_is_found():
    facts = board("agx-orin", {"FLASHHEAD_EDGE_JETPAK": "6.2", "FLASHHEAD_EDGE_CACHE_FOLDER": "x"})
    assert facts.misspelt == {"FLASHHEAD_EDGE_JETPAK": "FLASHHEAD_EDGE_JETPACK"}
