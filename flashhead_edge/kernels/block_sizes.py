"""How much one program of a kernel handles; the same for kernels compiled here and there.

Chosen so that the partial sums of a tile, one number of 32 bits each, fill 32 registers of a thread, and nothing spills
on any target. Which sizes are fastest on which GPU is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping

NUM_WARPS = 4
#: Stage 1: centroids, and blocks of 32 of their numbers.
CLUSTERS: Mapping[str, int] = {"BLOCK_K": 32, "BLOCKS": 8}
#: Stage 2: candidates, and numbers of their rows.
CANDIDATES: Mapping[str, int] = {"BLOCK_C": 16, "BLOCK_H": 256}
#: Keys in one step of the last reduction.
KEYS: Mapping[str, int] = {"BLOCK_N": 512}
#: Full-width logits: tokens of a cluster, and numbers of their rows.
TOKENS: Mapping[str, int] = {"BLOCK_C": 32, "BLOCK_H": 128}
#: Numbers of full-width logits, of one state or several.
COLUMNS = 1024


def blocks(count: int, size: int) -> int:
    """Programs that ``count`` things take."""
    return -(-count // size)


def covering(count: int) -> int:
    """The power of two, 16 at least, that ``count`` clusters fit in: one program chooses among all of them."""
    return max(16, 1 << (count - 1).bit_length())


def selecting_warps(width: int) -> int:
    """Warps of such a program: 8 clusters for each of 32 threads, at most 16 warps."""
    return min(16, max(1, width // 256))


def multiplied_states(batch: int) -> int:
    """States that a program multiplies at once; matrix units take 16 at least."""
    return 16 if batch <= 16 else 32


def filled_states(batch: int) -> int:
    """States whose columns a program fills at once."""
    return min(16, 1 << (batch - 1).bit_length())
