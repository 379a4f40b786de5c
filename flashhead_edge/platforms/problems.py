"""What does not fit together on a device: rules over its facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.jetpack import TENSORRT_11_JETPACK, tensorrt_of_jetpack, version_numbers
from flashhead_edge.platforms.packages import installed_onnx_runtimes
from flashhead_edge.platforms.recommendation import recommend

ERROR, WARNING, NOTE = "error", "warning", "note"
_GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


@dataclass(frozen=True)
class Problem:
    """Something that does not fit.

    Attributes:
        severity: "error" (it will fail), "warning" (slower or other than expected) or "note".
        message: What it is, in a sentence.
        found: What is there.
        expected: What would fit.
        hint: What to do.
    """

    severity: str
    message: str
    found: str
    expected: str
    hint: str


def find_problems(facts: DeviceFacts) -> list[Problem]:
    """Apply every rule; the worst problems come first.

    Args:
        facts: The device.
    """
    problems = [problem for rule in _RULES for problem in rule(facts)]
    return sorted(problems, key=lambda problem: (ERROR, WARNING, NOTE).index(problem.severity))


def _onnx_runtimes(facts: DeviceFacts) -> Iterator[Problem]:
    installed = installed_onnx_runtimes(facts.packages)
    if not installed:
        yield Problem(
            ERROR,
            "ONNX Runtime is not installed; no bundle can be run.",
            "none",
            "onnxruntime or onnxruntime-gpu",
            "see what to install below",
        )
    if len(installed) > 1:
        yield Problem(
            ERROR,
            "Several packages install the module onnxruntime, over each other's files.",
            ", ".join(f"{name} {facts.packages[name]}" for name in installed),
            "one of them",
            f"pip uninstall {' '.join(installed)}, then install what is named below",
        )


def _no_driver(facts: DeviceFacts) -> Iterator[Problem]:
    if facts.has_nvidia_gpu:
        return
    for name in ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "vllm"):
        if name in facts.packages:
            yield Problem(
                NOTE if name == "tensorrt-rtx" else WARNING,  # it builds engines without a GPU
                f"{name} is installed, but no NVIDIA driver was found.",
                f"{name} {facts.packages[name]}; {facts.nvidia.unknown_because or 'no GPU'}",
                "an NVIDIA driver",
                "install the driver; in a container, start it with the GPU (docker run --gpus all, "
                "or --runtime nvidia on a Jetson)",
            )


def _genai(facts: DeviceFacts) -> Iterator[Problem]:
    if "onnxruntime-genai" in facts.packages and version_numbers(facts.host.python) < (3, 11):
        yield Problem(
            WARNING,
            "onnxruntime-genai, which exports decoder bodies, has no current release for this Python.",
            f"onnxruntime-genai {facts.packages['onnxruntime-genai']} on Python {facts.host.python}",
            "Python 3.11 or newer",
            "export on a machine with Python 3.11; running bundles needs it not",
        )


def _tensorrt(facts: DeviceFacts) -> Iterator[Problem]:
    version = facts.packages.get("tensorrt")
    jetpack = facts.jetson.jetpack if facts.jetson else None
    shipped = (facts.jetson.tensorrt if facts.jetson else None) or (tensorrt_of_jetpack(jetpack) if jetpack else None)
    if not (version and jetpack and shipped):
        return
    major = version_numbers(version)[:1]
    newer_allowed = major == (11,) and version_numbers(jetpack) >= version_numbers(TENSORRT_11_JETPACK)
    if major != version_numbers(shipped)[:1] and not newer_allowed:
        yield Problem(
            ERROR,
            f"This TensorRT is not the one of JetPack {jetpack}.",
            f"tensorrt {version}",
            f"TensorRT {shipped.split('.')[0]}.x, of which JetPack {jetpack} ships {shipped}",
            "pip uninstall tensorrt, and use that of JetPack (sudo apt install python3-libnvinfer) in an environment "
            "made with --system-site-packages",
        )


def _providers(facts: DeviceFacts) -> Iterator[Problem]:
    installed = installed_onnx_runtimes(facts.packages)
    if facts.providers == () and installed:
        yield Problem(
            ERROR,
            "ONNX Runtime is installed, but it does not load.",
            f"{installed[0]} {facts.packages[installed[0]]}, which lists no provider",
            "a list with CPUExecutionProvider at least",
            'see why with: python -c "import onnxruntime" (a build for NumPy 1 needs: pip install "numpy<2")',
        )
    for provider in facts.providers or ():
        if provider.loads is not False or (provider.name in _GPU_PROVIDERS and not facts.has_nvidia_gpu):
            continue  # without a GPU, another rule says so
        severity = ERROR if provider.name == "CPUExecutionProvider" else WARNING
        yield Problem(
            severity,
            f"ONNX Runtime lists {provider.name}, but it does not load.",
            provider.reason or "no reason given",
            "a session on it",
            "see that the CUDA, cuDNN and TensorRT that this ONNX Runtime was built with are installed"
            if provider.name in _GPU_PROVIDERS
            else "see that the libraries of this provider are installed",
        )


def _cuda(facts: DeviceFacts) -> Iterator[Problem]:
    built_for, driver = facts.onnxruntime_cuda, facts.nvidia.cuda_version
    if built_for and driver and version_numbers(driver)[:1] < version_numbers(built_for)[:1]:
        yield Problem(
            ERROR,
            "This onnxruntime-gpu was built for a newer CUDA than the driver runs.",
            f"a build for CUDA {built_for}, a driver for CUDA {driver}",
            f"a driver for CUDA {built_for} or newer",
            f"update the driver, or install a release of onnxruntime-gpu for CUDA {driver.split('.')[0]}",
        )


def _unused_gpu(facts: DeviceFacts) -> Iterator[Problem]:
    best_is_gpu = recommend(facts).provider in _GPU_PROVIDERS
    if facts.has_nvidia_gpu and best_is_gpu and installed_onnx_runtimes(facts.packages) == ["onnxruntime"]:
        yield Problem(
            NOTE,
            "There is an NVIDIA GPU, but this ONNX Runtime runs on the CPU only.",
            f"onnxruntime {facts.packages['onnxruntime']}",
            "a build of ONNX Runtime for CUDA",
            "see what to install below",
        )


def _unknown_gpu(facts: DeviceFacts) -> Iterator[Problem]:
    if facts.nvidia.driver_version and not facts.nvidia.gpus and not facts.jetson and facts.nvidia.unknown_because:
        yield Problem(
            NOTE,
            "There is an NVIDIA driver, but nothing is known of its GPUs.",
            facts.nvidia.unknown_because,
            "the package nvidia-ml-py",
            "pip install nvidia-ml-py",
        )


def _power_mode(facts: DeviceFacts) -> Iterator[Problem]:
    mode = facts.jetson.power_mode if facts.jetson else None
    modes = (facts.jetson.power_modes if facts.jetson else None) or {}
    fastest = next((number for number in sorted(modes) if modes[number] == "MAXN_SUPER"), None)
    if fastest is None:
        fastest = next((number for number in sorted(modes) if modes[number].startswith("MAXN")), None)
    if mode is not None and fastest is not None and mode.id != fastest:
        yield Problem(
            NOTE,
            "The power mode limits clocks or cores.",
            mode.name or str(mode.id),
            f"{modes[fastest]}, for the highest speed",
            f"sudo nvpmodel -m {fastest}, if power supply and cooling allow it",
        )


def _unknown_jetpack(facts: DeviceFacts) -> Iterator[Problem]:
    if facts.jetson is not None and facts.jetson.jetpack is None:
        yield Problem(
            NOTE,
            "The version of JetPack is not known.",
            f"L4T {facts.jetson.l4t}" if facts.jetson.l4t else "neither an L4T release nor the package nvidia-jetpack",
            "a release in our table, or the package nvidia-jetpack",
            "give it: FLASHHEAD_EDGE_JETPACK=6.2, for instance",
        )


def _misspelt(facts: DeviceFacts) -> Iterator[Problem]:
    for variable, meant in facts.misspelt.items():
        yield Problem(WARNING, "An environment variable names no fact.", variable, meant, f"rename it to {meant}")


_RULES: tuple[Callable[[DeviceFacts], Iterator[Problem]], ...] = (
    _onnx_runtimes,
    _no_driver,
    _genai,
    _tensorrt,
    _providers,
    _cuda,
    _unused_gpu,
    _unknown_gpu,
    _power_mode,
    _unknown_jetpack,
    _misspelt,
)
