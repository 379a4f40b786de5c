"""How much one program of a kernel handles; the same for kernels compiled here and there.

Those of stage 1 and of full-width logits are the fastest on an H200 of the ones that were tried, by little; those of
stage 2 as a list are chosen so that the partial sums of a tile fill 32 registers of a thread. Nothing spills on any
target. Other GPUs are not measured.
"""

from __future__ import annotations

from collections.abc import Mapping

NUM_WARPS = 4
#: Stage 2: candidates, and numbers of their rows.
CANDIDATES: Mapping[str, int] = {"BLOCK_C": 16, "BLOCK_H": 256}
#: Keys in one step of the last reduction.
KEYS: Mapping[str, int] = {"BLOCK_N": 512}
#: Numbers of full-width logits, of one state or several.
_COLUMNS = 1024


def blocks(count: int, size: int) -> int:
    """Programs that ``count`` things take."""
    return -(-count // size)


def covering(count: int) -> int:
    """The power of two, 16 at least, that ``count`` clusters fit in: one program chooses among all of them."""
    return max(16, 1 << (count - 1).bit_length())


def selecting_warps(width: int) -> int:
    """Warps of such a program: 8 clusters for each of 32 threads, at most 16 warps."""
    return min(16, max(1, width // 256))


def cluster_sizes(batch: int, bits: int, state_bytes: int) -> dict[str, int]:
    """Stage 1: centroids, blocks of 32 of their numbers, as many as the registers hold, and states.

    Args:
        batch: B.
        bits: Of a code.
        state_bytes: Of a state's number; products of 4 bytes take three multiplications.
    """
    return {"BLOCK_K": 32, "BLOCKS": 8 if bits == 8 and state_bytes == 2 else 4, "BLOCK_B": _multiplied_states(batch)}


def token_sizes(batch: int) -> dict[str, int]:
    """Exact ones of full-width logits: tokens of a cluster, numbers of their rows, and states."""
    return {"BLOCK_C": 32, "BLOCK_H": 128, "BLOCK_B": _multiplied_states(batch)}


def column_sizes(batch: int) -> dict[str, int]:
    """Full-width logits: states, and columns of each."""
    states = min(16, 1 << (batch - 1).bit_length())
    return {"BLOCK_B": states, "BLOCK_V": _COLUMNS // states}


def _multiplied_states(batch: int) -> int:
    """States that a program multiplies at once; matrix units take 16 at least."""
    return 16 if batch <= 16 else 32
