"""PyTorch: the head through its operators, Triton kernels on a GPU and plain torch on a CPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import OptionalDependencyError, OptionError, RuntimeUnavailableError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.base import HeadOutput, HeadShape
from flashhead_edge.runtimes.reference import CENTROID_BITS

if TYPE_CHECKING:
    import torch

    from flashhead_edge.kernels.head_tensors import CentroidTensors


class TorchHead:
    """Executes a head with the operators of :mod:`flashhead_edge.kernels.operators`.

    Args:
        index: The head's index.
        rows: Table of rows [T, C, H] float16 or float32, in the order of ``index.token_order``.
        num_probes: P.
        row_bias: Bias of every slot, [T, C] float32, or None.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
        centroid_precision: "int4", "int8" or "fp32": what stage 1 reads.
        device: "cpu", which only shares the rows, or "cuda" or "cuda:N", which gets a copy of them.

    Raises:
        OptionalDependencyError: PyTorch is not installed, or the device is a GPU and Triton is not.
        OptionError: P, the precision or the device's name is wrong.
        RuntimeUnavailableError: PyTorch cannot use the device here.
    """

    name = "torch"

    def __init__(
        self,
        index: HeadIndex,
        rows: npt.NDArray[np.generic],
        num_probes: int,
        *,
        row_bias: npt.NDArray[np.float32] | None = None,
        logit_scale: float = 1.0,
        logit_softcap: float | None = None,
        centroid_precision: str = "fp32",
        device: str = "cpu",
    ) -> None:
        if not 1 <= num_probes <= index.num_clusters:
            raise OptionError(
                "The number of probes is out of range.", found=num_probes, expected=f"1 to {index.num_clusters}"
            )
        if centroid_precision not in CENTROID_BITS:
            raise OptionError(
                "The precision of the centroids is unknown.",
                found=centroid_precision,
                expected=", ".join(CENTROID_BITS),
            )
        self._device = _open_device(device)
        from flashhead_edge.kernels.head_tensors import HeadTensors, activation_values

        self.providers: tuple[str, ...] = (str(self._device),)
        self.shape = HeadShape(
            index.vocab_size,
            index.hidden_size,
            index.num_clusters,
            index.cluster_size,
            num_probes,
            index.num_candidates(num_probes),
        )
        self._head = HeadTensors(
            rows=self._tensor(rows),
            token_order=self._tensor(index.token_order),
            num_clusters=index.num_clusters,
            activation=self._tensor(np.array(activation_values(logit_scale, logit_softcap), dtype=np.float32)),
            row_bias=None if row_bias is None else self._tensor(row_bias),
        )
        self._centroids = self._open_centroids(index, CENTROID_BITS[centroid_precision])
        self._bias = self._tensor(index.centroid_bias)
        self._selection_offset = self._tensor(index.selection_offset)

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, device: str = "cpu") -> TorchHead:
        """Open the head of a bundle."""
        manifest = bundle.manifest
        return cls(
            bundle.index(),
            bundle.rows().floats(),
            manifest.index.num_probes,
            row_bias=bundle.table(layout.ROW_BIAS).astype(np.float32) if manifest.has_bias else None,
            logit_scale=manifest.logit_scale,
            logit_softcap=manifest.logit_softcap,
            centroid_precision=manifest.index.centroid_precision,
            device=device,
        )

    def run(self, hidden_states: npt.NDArray[np.float32]) -> HeadOutput:
        """Score states; see :meth:`HeadRuntime.run`."""
        import torch

        from flashhead_edge.kernels import operators
        from flashhead_edge.kernels.torch_functions import activate

        states = self._tensor(self.shape.check_states(hidden_states))
        with torch.inference_mode():
            if isinstance(self._centroids, torch.Tensor):
                products = torch.addmm(self._bias, states, self._centroids.T)
            else:
                products = operators.score_clusters(self._centroids, states)
            probes = (products + self._selection_offset).topk(self.shape.num_probes, dim=1).indices
            candidates = operators.score_candidates(self._head, states, probes)
            scores = activate(products, self._head.activation)
            return HeadOutput(*(tensor.cpu().numpy() for tensor in (*candidates, scores)))

    def _open_centroids(self, index: HeadIndex, bits: int) -> torch.Tensor | CentroidTensors:
        """Centroids [K, H], or their codes."""
        from flashhead_edge.kernels.head_tensors import CentroidTensors

        if bits == 32:
            return self._tensor(index.centroids)
        quantized = quantize_rows(index.centroids, bits)
        codes, scales = self._tensor(quantized.codes), self._tensor(quantized.float_scales)
        return CentroidTensors(codes, scales, self._tensor(index.centroid_bias), bits)

    def _tensor(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        """On the device; on the CPU the array's own memory."""
        import torch

        with warnings.catch_warnings():
            # Bundles are mapped read-only, and nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _open_device(name: str) -> torch.device:
    """The device of that name, if it can be used here."""
    try:
        import torch
    except ImportError as error:
        raise OptionalDependencyError("torch", "torch", "The PyTorch runtime") from error
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError("PyTorch knows no such device.", found=name, expected="cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise OptionError("The PyTorch runtime has no kernels for the device.", found=name, expected="cpu or cuda")
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise RuntimeUnavailableError(
            f"PyTorch {torch.__version__} cannot use {name} here.",
            found=f"{torch.cuda.device_count()} GPUs",
            hint="install a build of PyTorch for the GPU's driver, or choose device cpu",
        )
    # At once, rather than at the first step.
    from flashhead_edge.kernels import launches  # noqa: F401

    return device
