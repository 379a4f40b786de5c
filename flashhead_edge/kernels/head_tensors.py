"""A head's tensors on a device, as the kernels take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flashhead_edge.errors import OptionError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class HeadTensors:
    """Stage 2 of a head: the rows, in the order of the clusters or of the vocabulary. Nothing is copied.

    Of the T clusters of the table the first K have centroids; the others hold always-scored tokens. Devices that share
    a vocabulary have all clusters, with -1 where a token is another device's.

    Attributes:
        rows: [T, C, H] in the order of ``token_order``, or [V, H] in that of the vocabulary; float16, bfloat16,
            float32, or int8 with ``row_scales``.
        token_order: Token id in each slot, -1 for padding, [T, C] int32.
        num_clusters: K.
        activation: Factor on the logits, soft-cap (0 for none), and the relative step by which estimates stay below
            the best exact logit, [3] float32: see :func:`activation_values`.
        row_scales: Scale of each int8 row, [T, C] or [V] float32.
        row_bias: Bias of each row, [T, C] or [V] float32, or None.

    Raises:
        OptionError: Tensors do not fit each other.
    """

    rows: torch.Tensor
    token_order: torch.Tensor
    num_clusters: int
    activation: torch.Tensor
    row_scales: torch.Tensor | None = None
    row_bias: torch.Tensor | None = None

    def __post_init__(self) -> None:
        import torch

        known = (torch.float16, torch.bfloat16, torch.float32, torch.int8)
        _check("rows", self.rows, known, (*self.token_order.shape, None) if self.rows.ndim == 3 else (None, None))
        _check("token_order", self.token_order, (torch.int32,), (None, None))
        _check("activation", self.activation, (torch.float32,), (3,))
        if (self.rows.dtype == torch.int8) != (self.row_scales is not None):
            raise OptionError(
                "Scales belong to int8 rows, and to no others.",
                found=f"{self.rows.dtype} rows {'without' if self.row_scales is None else 'with'} scales",
            )
        for name in ("row_scales", "row_bias"):
            tensor = getattr(self, name)
            if tensor is not None:
                _check(name, tensor, (torch.float32,), tuple(self.rows.shape[:-1]))
        if not 1 <= self.num_clusters <= len(self.token_order):
            raise OptionError(
                "The number of clusters is out of range.", found=self.num_clusters, expected=len(self.token_order)
            )

    def arguments(self) -> tuple[torch.Tensor | int | None, ...]:
        """In the order of the operators' arguments."""
        return (self.rows, self.token_order, self.activation, self.row_scales, self.row_bias, self.num_clusters)


@dataclass(frozen=True)
class CentroidTensors:
    """Stage 1 of a head in codes of 4 or 8 bits, laid out as :class:`flashhead_edge.quantize.QuantizedRows`.

    Attributes:
        codes: [K, ceil(H / 32), 16 or 32] uint8.
        scales: [K, ceil(H / 32)] float32.
        bias: [K] float32.
        bits: 4 or 8.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor
    bits: int

    def __post_init__(self) -> None:
        import torch

        if self.bits not in (4, 8):
            raise OptionError("Codes have 4 or 8 bits.", found=self.bits, expected="4 or 8")
        _check("codes", self.codes, (torch.uint8,), (None, None, 4 * self.bits))
        _check("scales", self.scales, (torch.float32,), tuple(self.codes.shape[:2]))
        _check("bias", self.bias, (torch.float32,), (int(self.codes.shape[0]),))


@dataclass(frozen=True)
class LogitColumns:
    """What full-width logits say of tokens whose clusters stay closed.

    Attributes:
        slot_of_token: Slot of every column, [W] int32: 0 to T * C - 1, or -1 where a column is no token.
        estimate_offset: Added to a cluster's product for what is expected of one of its tokens, [K] float32. With 0 the
            estimate is the cluster's score: the logarithm of its members' mean exponential, if so calibrated; with
            -inf a closed cluster's tokens are impossible.
    """

    slot_of_token: torch.Tensor
    estimate_offset: torch.Tensor

    def __post_init__(self) -> None:
        import torch

        _check("slot_of_token", self.slot_of_token, (torch.int32,), (None,))
        _check("estimate_offset", self.estimate_offset, (torch.float32,), (None,))

    @property
    def width(self) -> int:
        """W."""
        return int(self.slot_of_token.shape[0])


def activation_values(
    logit_scale: float = 1.0, logit_softcap: float | None = None, dtype: torch.dtype | None = None
) -> list[float]:
    """The numbers of :attr:`HeadTensors.activation`.

    Args:
        logit_scale: Factor on the logits; 1 where the caller scales them afterwards.
        logit_softcap: Soft-cap, or None.
        dtype: Type of full-width logits, which says how far below the best logit an estimate must be so that it is
            still below it after rounding to that type, twice; None for float32.

    Returns:
        Three numbers.
    """
    import torch

    return [logit_scale, logit_softcap or 0.0, 2 * torch.finfo(dtype or torch.float32).eps]


def _check(name: str, tensor: torch.Tensor, dtypes: tuple[torch.dtype, ...], shape: tuple[int | None, ...]) -> None:
    fits = tensor.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits or tensor.dtype not in dtypes or not tensor.is_contiguous():
        raise OptionError(
            f"The tensor {name} does not fit the head.",
            found=f"{tensor.dtype} {list(tensor.shape)}{'' if tensor.is_contiguous() else ', not contiguous'}",
            expected=f"{' or '.join(map(str, dtypes))} {['any' if n is None else n for n in shape]}, contiguous",
        )
