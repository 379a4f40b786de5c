"""An engine on the GPU: opened once, its buffers allocated once for the greatest batch, executed per batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import EngineError, RuntimeUnavailableError
from flashhead_edge.runtimes.tensorrt.engine_build import import_package

_INPUT = "hidden_states"


class EngineSession:
    """Executes an engine.

    Args:
        engine: The engine's file, checked by its hash.
        backend: "tensorrt" or "tensorrt-rtx".
        version: Version that built it, which must be the installed one.
        weights: Bytes of inputs that stay the same, [N] uint8, by name.

    Raises:
        RuntimeUnavailableError: The package, or the CUDA runtime, cannot be used.
        EngineError: The engine is not for this version or this GPU.
    """

    def __init__(
        self, engine: Path, backend: str, version: str, weights: Mapping[str, npt.NDArray[np.uint8]] | None = None
    ) -> None:
        trt = import_package(backend)
        if trt.__version__ != version:
            raise EngineError(
                f"The engine was built by another version of {backend}.",
                found=f"{trt.__version__} is installed",
                expected=version,
                hint="flashhead-edge build makes a new one",
            )
        from polygraphy.exception import PolygraphyException
        from polygraphy.logger import G_LOGGER

        G_LOGGER.use_python_logging_system, G_LOGGER.colors = True, False  # standard output is not its own
        try:
            self._open(trt, engine.read_bytes())
            self._allocate(trt, weights or {})
        except (PolygraphyException, OSError) as error:
            raise RuntimeUnavailableError(
                f"The engine cannot be opened with {backend} {version} on this GPU.",
                found=str(error).strip().splitlines()[0],
                hint="flashhead-edge doctor shows driver and GPU; the CUDA runtime comes with JetPack, the CUDA toolkit"
                " or pip install nvidia-cuda-runtime-cu12",
            ) from error

    def _open(self, trt: Any, engine: bytes) -> None:
        """Deserialize, after TensorRT's own check where it has one."""
        from polygraphy.backend.trt import EngineFromBytes, get_trt_logger

        runtime = trt.Runtime(get_trt_logger())
        if hasattr(runtime, "get_engine_validity"):
            validity, diagnostics = runtime.get_engine_validity(engine)
            if validity == trt.EngineValidity.INVALID:
                kinds = trt.EngineInvalidityDiagnostics.__members__.items()
                reasons = [name for name, bit in kinds if int(diagnostics) & int(bit)]
                raise EngineError(
                    "TensorRT says that this engine cannot run here.",
                    found=", ".join(reasons) or "its log says why",
                    hint="flashhead-edge build makes a new one; flashhead-edge doctor shows driver and GPU",
                )
        self._engine = EngineFromBytes(engine, runtime=runtime)()
        self._context = self._engine.create_execution_context()

    def _allocate(self, trt: Any, weights: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Buffers for the greatest batch; their addresses stay."""
        from polygraphy.cuda import DeviceArray, Stream
        from polygraphy.datatype import DataType

        least, _, most = self._engine.get_tensor_profile_shape(_INPUT, 0)
        #: Least and greatest batch of the profile.
        self.batch = (int(least[0]), int(most[0]))
        self._stream = Stream()
        self._buffers: dict[str, Any] = {}
        self._types: dict[str, Any] = {}
        self._accept(tuple(most))
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if name in weights:
                buffer = DeviceArray.raw(weights[name].shape)
                buffer.copy_from(weights[name])
            else:
                kind = DataType.from_dtype(self._engine.get_tensor_dtype(name), source_module="tensorrt")
                buffer = DeviceArray(tuple(self._context.get_tensor_shape(name)), kind)
                if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                    self._types[name] = DataType.to_dtype(kind, "numpy")
            self._buffers[name] = buffer
            self._context.set_tensor_address(name, buffer.ptr)

    def run(self, states: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Execute a batch.

        Args:
            states: [B, H] float32, contiguous, with a batch of the profile.

        Returns:
            The outputs by name, in the types of the engine.

        Raises:
            EngineError: TensorRT refuses the batch or fails.
        """
        self._accept(states.shape)
        self._buffers[_INPUT].resize(states.shape).copy_from(states, self._stream)
        if not self._context.execute_async_v3(self._stream.ptr):
            raise EngineError("TensorRT could not execute the engine.", hint="the log of Polygraphy says why")
        outputs = {}
        for name, kind in self._types.items():
            buffer = self._buffers[name].resize(tuple(self._context.get_tensor_shape(name)))
            outputs[name] = buffer.copy_to(np.empty(buffer.shape, kind), self._stream)
        self._stream.synchronize()
        return outputs

    def _accept(self, shape: tuple[int, ...]) -> None:
        """Set the shape of the states."""
        if not self._context.set_input_shape(_INPUT, shape):
            raise EngineError("TensorRT refuses this batch.", found=list(shape), expected=f"a batch in {self.batch}")
