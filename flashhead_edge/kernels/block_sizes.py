"""How much one program of a kernel handles; the same for kernels compiled here and there.

Chosen so that the partial sums of a tile, one number of 32 bits each, fill 32 registers of a thread, and nothing spills
on any target. Which sizes are fastest on which GPU is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping

NUM_WARPS = 4
#: Stage 1: centroids, and blocks of 32 of their numbers. A byte of int4 is two numbers.
CLUSTERS: Mapping[str, int] = {"BLOCK_K": 16, "BLOCKS": 8}
#: Stage 2: candidates, and numbers of their rows.
CANDIDATES: Mapping[str, int] = {"BLOCK_C": 16, "BLOCK_H": 256}
#: Keys in one step of the last reduction.
KEYS: Mapping[str, int] = {"BLOCK_N": 512}
#: Columns of full-width logits.
COLUMNS: Mapping[str, int] = {"BLOCK_V": 1024}


def blocks(count: int, size: int) -> int:
    """Programs that ``count`` things take."""
    return -(-count // size)
