"""Runs a head through our TensorRT runtime where there is neither TensorRT nor a GPU, for its handling of buffers.

    python -m tests.tensorrt_bindings.run_head BUNDLE VERSION STATES.npy OUTPUTS.npz LEAST MOST

Of TensorRT there are the names of a version; "executing" reads the inputs at the addresses that were set, runs the
graph in ONNX Runtime, and writes the outputs at theirs. Polygraphy's buffers are real, over memory of the host.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from flashhead_edge.bundle import Bundle
from flashhead_edge.runtimes.base import HeadShape
from flashhead_edge.runtimes.tensorrt import runtime
from flashhead_edge.runtimes.tensorrt.engine_session import EngineSession
from tests.tensorrt_bindings import standin

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8, "tensor(int32)": np.int32}


class HostCuda:
    """What polygraphy asks of CUDA, in memory of the host; nothing is freed twice or written past its end."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def create_stream(self) -> int:
        return 1

    def stream_synchronize(self, stream: int) -> None:
        assert stream == 1

    def malloc(self, size: int) -> int:
        block = ctypes.create_string_buffer(b"\xab" * size, size)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        if address:
            del self.blocks[address]

    def memcpy(self, dst: int, src: int, nbytes: Any, kind: Any, stream_ptr: int | None = None) -> None:
        for address in (dst, src):
            if address in self.blocks:
                assert nbytes <= len(self.blocks[address])
        ctypes.memmove(dst, src, nbytes)


class Engine:
    """A graph that is executed at addresses."""

    def __init__(self, graph: Path, batch: tuple[int, int], int64: bool) -> None:
        self.session = onnxruntime.InferenceSession(graph)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.names = [*self.inputs, *self.outputs]
        self.batch, self.int64 = batch, int64
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "hidden_states"
        self.shape = tuple(shape)
        return self.batch[0] <= shape[0] <= self.batch[1]

    def set_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def tensor_shape(self, name: str) -> tuple[int, ...]:
        if name == "hidden_states":
            return self.shape
        if name in self.inputs:
            return tuple(self.inputs[name].shape)
        sizes = {"token_ids": (), "cluster_scores": (self.clusters,)}
        return (self.shape[0], *sizes.get(name, (self.candidates,)))

    def dtype(self, name: str) -> Any:
        kinds = sys.modules["tensorrt"].DataType
        if name == "hidden_states" or name in ("candidate_logits", "cluster_scores"):
            return kinds.FLOAT
        return kinds.INT64 if self.int64 else kinds.INT32

    def execute(self, stream_handle: int) -> bool:
        assert stream_handle == 1
        feed = {}
        for name, value in self.inputs.items():
            kind, shape = np.dtype(TYPES[value.type]), self.tensor_shape(name)
            size = int(np.prod(shape)) * kind.itemsize
            feed[name] = np.frombuffer(ctypes.string_at(self.addresses[name], size), kind).reshape(shape)
        for name, array in zip(self.outputs, self.session.run(self.outputs, feed), strict=True):
            written = array if self.int64 or array.dtype != np.int64 else array.astype(np.int32)
            assert written.shape == self.tensor_shape(name)
            ctypes.memmove(self.addresses[name], np.ascontiguousarray(written).ctypes.data, written.nbytes)
        return True


def main(bundle_path: str, version: str, states: str, outputs: str, least: str, most: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        standin.write_package(Path(folder), version)
        sys.path.insert(0, folder)
        os.environ.setdefault("STANDIN_CALLS", os.devnull)
        bundle = Bundle.open(bundle_path)
        graph = bundle.graph("head_tensorrt")
        assert graph.tensorrt is not None
        shape = HeadShape.of_bundle(bundle.manifest)
        engine = Engine(bundle.file(graph.file), (int(least), int(most)), int64=not version.startswith("8."))
        engine.clusters, engine.candidates = shape.num_clusters, shape.num_candidates  # type: ignore[attr-defined]
        standin.VALUES |= {
            "ICudaEngine.num_io_tensors": len(engine.names),
            "ICudaEngine.get_tensor_name": lambda index: engine.names[index],
            "ICudaEngine.get_tensor_mode": lambda name: sys.modules["tensorrt"].TensorIOMode[
                "INPUT" if name in engine.inputs else "OUTPUT"
            ],
            "ICudaEngine.get_tensor_dtype": engine.dtype,
            "ICudaEngine.get_tensor_profile_shape": lambda name, profile_index: [
                (size, shape.hidden_size) for size in (engine.batch[0], engine.batch[0], engine.batch[1])
            ],
            "IExecutionContext.set_input_shape": engine.set_input_shape,
            "IExecutionContext.set_tensor_address": engine.set_address,
            "IExecutionContext.get_tensor_shape": engine.tensor_shape,
            "IExecutionContext.execute_async_v3": engine.execute,
        }
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "0"
        from polygraphy.cuda import cuda

        cuda.G_CUDA = HostCuda()
        (Path(folder) / "engine").write_bytes(b"an engine")
        weights = {name: runtime._bytes(bundle, tensor) for name, tensor in graph.tensorrt.weights.items()}
        session = EngineSession(Path(folder) / "engine", "tensorrt", version, weights)
        head = runtime.TensorRtHead(session, shape, f"tensorrt {version}")
        np.savez(outputs, **head.run(np.load(states))._asdict())


if __name__ == "__main__":
    main(*sys.argv[1:])
