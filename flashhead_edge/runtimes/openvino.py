"""OpenVINO: ``head.onnx`` on Intel's CPUs, GPUs and NPUs, by device name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError, OptionalDependencyError, OptionError, RuntimeUnavailableError
from flashhead_edge.runtimes.base import HeadOutput, HeadShape


class OpenVinoHead:
    """Executes a head graph, in float32 where the graph says so.

    Args:
        graph: ``head.onnx``, or any graph of the same contract.
        shape: Sizes of the head.
        threads: Threads of the CPU; None leaves the choice to OpenVINO.
        device: OpenVINO's name of one device, such as "CPU", "GPU" or "NPU". Its AUTO, MULTI and HETERO are refused:
            they choose among devices by themselves.

    Raises:
        OptionalDependencyError: OpenVINO is not installed.
        OptionError: ``threads`` is not positive, or ``device`` is a group of devices.
        RuntimeUnavailableError: There is no such device here, or it cannot run the graph.
        BundleError: OpenVINO cannot read the graph.
    """

    name = "openvino"

    def __init__(self, graph: Path, shape: HeadShape, *, threads: int | None = None, device: str = "CPU") -> None:
        self.shape = shape
        compiled = compile_model(graph, threads=threads, device=device)
        self._request = compiled.create_infer_request()
        self.providers: tuple[str, ...] = tuple(compiled.get_property("EXECUTION_DEVICES"))

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int | None = None, device: str = "CPU") -> OpenVinoHead:
        """Open the head of a bundle."""
        graph = bundle.file(bundle.graph("head").file)
        return cls(graph, HeadShape.of_bundle(bundle.manifest), threads=threads, device=device)

    def run(self, hidden_states: npt.NDArray[np.float32]) -> HeadOutput:
        """Score states; see :meth:`HeadRuntime.run`."""
        states = self.shape.check_states(hidden_states)
        results = self._request.infer({"hidden_states": states}, share_inputs=True)
        return HeadOutput(*(np.array(results[name]) for name in HeadOutput._fields))


def compile_model(graph: Path, *, threads: int | None, device: str) -> Any:
    """Read a graph and compile it for a device.

    Args:
        graph: An ONNX file of a bundle.
        threads: Threads of the CPU; None leaves the choice to OpenVINO.
        device: OpenVINO's name of one device.

    Returns:
        OpenVINO's compiled model.

    Raises:
        OptionalDependencyError: OpenVINO is not installed.
        OptionError: ``threads`` is not positive, or ``device`` is a group of devices.
        RuntimeUnavailableError: There is no such device here, or it cannot run the graph.
        BundleError: OpenVINO cannot read the graph.
    """
    try:
        import openvino
    except ImportError as error:
        raise OptionalDependencyError("openvino", "openvino", "The OpenVINO runtime") from error
    if threads is not None and threads < 1:
        raise OptionError("The number of threads is out of range.", found=threads, expected="1 or more")
    if device.partition(":")[0] in ("AUTO", "MULTI", "HETERO", "BATCH"):
        raise OptionError("OpenVINO would choose the device by itself.", found=device, expected="one device")
    core = openvino.Core()
    if device not in core.available_devices:
        raise RuntimeUnavailableError(
            f"OpenVINO {openvino.__version__} has no device {device}.",
            found=", ".join(core.available_devices) or "no device",
            expected=device,
            hint="install the device's driver, or choose another device",
        )
    # Without the hint a CPU with bfloat16 instructions would compute in bfloat16.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        model = core.read_model(graph)
    except RuntimeError as error:
        raise BundleError(
            f"OpenVINO {openvino.__version__} cannot read {graph.name}.",
            found=_last_line(error),
            hint="the file is missing, damaged, or newer than this OpenVINO: copy or export the bundle again",
        ) from error
    try:
        return core.compile_model(model, device, options)
    except RuntimeError as error:
        raise RuntimeUnavailableError(
            f"OpenVINO {openvino.__version__} cannot run {graph.name} on {device}.",
            found=_last_line(error),
            hint="choose another device, or install another version of OpenVINO",
        ) from error


def _last_line(error: Exception) -> str:
    """What went wrong, without the places in OpenVINO's sources where it was noticed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
