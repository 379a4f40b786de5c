"""Full-width logits of a two-stage head on the CPU: both stages, and one pass over all columns.

Rows are read where the caller has them, in the order of the vocabulary, as float32, float16 or bfloat16. Work is
shared among the threads of the OpenMP runtime that PyTorch brought into the process, which are idle meanwhile; a pool
of our own would compete with them for processors.
"""

from __future__ import annotations

import ctypes
from ctypes import CDLL, POINTER, Structure, c_float, c_int64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flashhead_edge import native
from flashhead_edge.errors import OptionError
from flashhead_edge.kernels.head_tensors import CentroidTensors, HeadTensors, LogitColumns

if TYPE_CHECKING:
    import torch


class _Tables(Structure):
    """``FlashheadTables`` of native/capi_logits.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("hidden_size", "clusters", "places", "cluster_size", "probes", "width")),
        *((name, c_void_p) for name in ("centroid_codes", "centroid_scales", "centroid_bias", "selection_offset")),
        *((name, c_void_p) for name in ("estimate_offset", "rows", "token_order", "cluster_of_token", "row_bias")),
        ("type", c_int64),
        ("margin", c_float),
        ("region", c_void_p),
        ("threads", c_int64),
    ]


@dataclass(frozen=True)
class Candidates:
    """What both stages say of B states.

    Attributes:
        ids: Candidates, -1 for none, [B, M] int64.
        logits: Their logits, -inf for none, [B, M] float32.
        products: Products of states and centroids, plus bias, [B, K] float32.
        best: The best logit, [B] float32.
    """

    ids: torch.Tensor
    logits: torch.Tensor
    products: torch.Tensor
    best: torch.Tensor


class FullLogits:
    """A head's tensors on the CPU. Nothing is copied but the bias of rows.

    Args:
        head: Stage 2, with floating rows in the order of the vocabulary, [V, H], and neither scale nor soft-cap.
        columns: Slot of each of the W columns.
        centroids: Stage 1, in 8 bits.
        selection_offset: [K] float32.
        num_probes: P.

    Raises:
        OptionError: Tensors do not fit each other, or are not on the CPU.
        RuntimeUnavailableError: The native library cannot be used.
    """

    def __init__(
        self,
        head: HeadTensors,
        columns: LogitColumns,
        centroids: CentroidTensors,
        selection_offset: torch.Tensor,
        num_probes: int,
    ) -> None:
        import torch

        self._library = _declare(native.library())
        places, cluster_size = head.token_order.shape
        width, hidden_size = columns.width, head.rows.shape[1]
        row_bias = None
        if head.row_bias is not None:
            row_bias = head.row_bias[head.token_order.long().clamp(min=0)].contiguous()
        types = (torch.float32, torch.float16, torch.bfloat16)
        offsets = (selection_offset, columns.estimate_offset, centroids.bias)
        fits = (
            head.rows.dtype in types
            and centroids.bits == 8
            and tuple(centroids.codes.shape[:2]) == (head.num_clusters, -(-hidden_size // 32))
            and all(tensor.shape == (head.num_clusters,) and tensor.dtype == torch.float32 for tensor in offsets)
            and 1 <= num_probes <= head.num_clusters
            and int(head.token_order.max()) < min(width, len(head.rows))
            and int(columns.slot_of_token.max()) < head.token_order.numel()
            and int(columns.slot_of_token.min()) >= -1
            and head.activation[:2].tolist() == [1.0, 0.0]
        )
        if not fits or any(tensor.device.type != "cpu" for tensor in (head.rows, *offsets)):
            raise OptionError(
                "The head's tensors do not fit the native library.",
                found=f"{head.rows.dtype} rows {list(head.rows.shape)} on {head.rows.device}, {num_probes} probes, "
                f"codes {list(centroids.codes.shape)}",
            )
        clusters = columns.slot_of_token.div(cluster_size, rounding_mode="floor")
        scales = centroids.scales.half()
        # Whose memory the tables point into.
        self._kept = (head, columns, centroids, selection_offset, row_bias, clusters, scales)
        self._dtype = head.rows.dtype
        self._sizes = (head.num_clusters, (num_probes + places - head.num_clusters) * cluster_size, width)
        self._tables = _Tables(
            hidden_size=hidden_size,
            clusters=head.num_clusters,
            places=places,
            cluster_size=cluster_size,
            probes=num_probes,
            width=width,
            centroid_codes=centroids.codes.data_ptr(),
            centroid_scales=scales.data_ptr(),
            centroid_bias=centroids.bias.data_ptr(),
            selection_offset=selection_offset.data_ptr(),
            estimate_offset=columns.estimate_offset.data_ptr(),
            rows=head.rows.data_ptr(),
            token_order=head.token_order.data_ptr(),
            cluster_of_token=clusters.data_ptr(),
            row_bias=None if row_bias is None else row_bias.data_ptr(),
            type=types.index(self._dtype),
            margin=float(head.activation[2]),
            region=_parallel_region(),
            threads=torch.get_num_threads(),
        )

    def candidates(self, states: torch.Tensor) -> Candidates:
        """Both stages.

        Args:
            states: [B, H], any floating type.

        Returns:
            Candidates; devices that share a vocabulary take the greatest of their best logits before they fill.
        """
        import torch

        states = states.float().contiguous()
        batch, (clusters, count, _) = len(states), self._sizes
        found = Candidates(
            torch.empty(batch, count, dtype=torch.int64),
            torch.empty(batch, count, dtype=torch.float32),
            torch.empty(batch, clusters, dtype=torch.float32),
            torch.empty(batch, dtype=torch.float32),
        )
        if batch:
            _succeed(
                self._library.flashhead_candidates(
                    self._tables,
                    states.data_ptr(),
                    batch,
                    *(tensor.data_ptr() for tensor in (found.ids, found.logits, found.products, found.best)),
                )
            )
        return found

    def fill(self, found: Candidates, best: torch.Tensor) -> torch.Tensor:
        """All columns: exact logits of candidates, estimates of the others below the best logit of all devices.

        Args:
            found: What :meth:`candidates` gave.
            best: The best exact logit over all devices, [B] float32.

        Returns:
            Logits [B, W] in the type of the rows, -inf where no token is.
        """
        import torch

        best = best.contiguous()
        logits = torch.empty(len(best), self._sizes[-1], dtype=self._dtype)
        if len(best):
            inputs = (found.ids, found.logits, found.products, best)
            places = (tensor.data_ptr() for tensor in inputs)
            _succeed(self._library.flashhead_fill_logits(self._tables, *places, len(best), logits.data_ptr()))
        return logits


def _parallel_region() -> int | None:
    """``GOMP_parallel`` of the OpenMP runtime that torch runs on; None where torch was built without one."""
    function = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    return None if function is None else ctypes.cast(function, c_void_p).value


@lru_cache(maxsize=1)
def _declare(library: CDLL) -> CDLL:
    """State the types of the C functions in native/capi_logits.cpp, once."""
    outputs: list[Any] = [c_void_p] * 4
    library.flashhead_candidates.argtypes = [POINTER(_Tables), c_void_p, c_int64, *outputs]
    library.flashhead_fill_logits.argtypes = [POINTER(_Tables), *outputs, c_int64, c_void_p]
    return library


def _succeed(status: int) -> None:
    if status:
        raise MemoryError
