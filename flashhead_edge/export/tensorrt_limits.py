"""What no TensorRT builds, refused before an export starts."""

from __future__ import annotations

from flashhead_edge.errors import OptionError

#: Greatest k of TensorRT's TopK layer.
MOST_PROBES = 3840
#: Numbers that a tensor can have, also one that fusing never writes: TensorRT 8.6 and 10.0.1 refuse more
#: (https://github.com/NVIDIA/TensorRT/issues/3815); TensorRT for RTX 1.7 builds it, but nobody has run that.
MOST_NUMBERS = (1 << 31) - 1


def check_limits(*, num_probes: int, num_clusters: int, table: tuple[int, int, int], batch: int) -> None:
    """Refuse a head that TensorRT cannot build.

    Args:
        num_probes: P.
        num_clusters: K.
        table: [T, C, H], shape of the table.
        batch: The greatest.

    Raises:
        OptionError: Too many clusters for its TopK, or too many numbers for a tensor.
    """
    total, size, width = table
    if num_probes > MOST_PROBES:
        raise OptionError(
            "TensorRT cannot open this many clusters.",
            found=num_probes,
            expected=f"at most {MOST_PROBES} (the greatest k of its TopK layer)",
            hint="export with fewer probes, or with larger clusters",
        )
    opened = num_probes + total - num_clusters
    numbers = {
        "The table has": total * size * width,
        f"The clusters opened for a batch of {batch} have": batch * opened * size * width,
        f"The centroids times a batch of {batch} have": batch * num_clusters * width,
    }
    for what, count in numbers.items():
        if count > MOST_NUMBERS:
            raise OptionError(
                f"{what} more numbers than a tensor of TensorRT can.",
                found=count,
                expected=f"at most {MOST_NUMBERS}",
                hint="export for a smaller batch, or with fewer probes",
            )
