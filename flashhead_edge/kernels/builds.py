"""Which kernels are compiled ahead of time, for which types.

A hidden size must be a multiple of 16, as those of all known models are: rows are then read 16 bytes at a time.
Pointers are aligned to 16 bytes, as every allocator's are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flashhead_edge.kernels.block_sizes import (
    CANDIDATES,
    KEYS,
    NUM_WARPS,
    cluster_sizes,
    column_sizes,
    selecting_warps,
    token_sizes,
)

#: Parameters that are multiples of 16, besides pointers.
DIVISIBLE = ("hidden_size",)
#: Clusters that ``open_clusters`` is compiled for, at most.
_CLUSTERS = 8192
#: Triton's names of types that do not vary, by parameter without ``_ptr``.
_TYPES: Mapping[str, str] = {
    "activation": "fp32",
    "best_keys": "i64",
    "best_logits": "fp32",
    "bias": "fp32",
    "candidate_ids": "i64",
    "candidate_logits": "fp32",
    "codes": "u8",
    "estimate_offset": "fp32",
    "estimates": "fp32",
    "probes": "i32",  # what TensorRT's TopK gives
    "products": "fp32",
    "row_bias": "fp32",
    "row_scales": "fp32",
    "scales": "fp32",
    "selection_offset": "fp32",
    "slot_of_token": "i32",
    "token_ids": "i64",
    "token_order": "i32",
}


@dataclass(frozen=True)
class Build:
    """A kernel with its types.

    Attributes:
        name: Unique, and a file name.
        module: Module of :mod:`flashhead_edge.kernels` that holds the kernel.
        kernel: Its name.
        types: Triton's names of the types that vary, by parameter without ``_ptr``.
        constants: Compile-time constants.
        num_warps: Warps of a program.
    """

    name: str
    module: str
    kernel: str
    types: Mapping[str, str]
    constants: Mapping[str, int | bool]
    num_warps: int = NUM_WARPS

    def type_of(self, parameter: str) -> str:
        """Triton's name of a parameter's type."""
        if parameter.isupper():
            return "constexpr"
        if not parameter.endswith("_ptr"):
            return "i32"
        name = parameter.removesuffix("_ptr")
        return f"*{self.types.get(name) or _TYPES[name]}"


def _builds() -> tuple[Build, ...]:
    stage1, stage2, logits = "triton_stage1", "triton_stage2", "triton_logits"
    floats = ("fp32", "fp16", "bf16")
    return (
        *(
            Build(
                f"score_clusters-int{bits}-{state}",
                stage1,
                "score_clusters",
                {"states": state},
                {**cluster_sizes(1, bits, 4 if state == "fp32" else 2), "BITS": bits, "WIDE": False},
            )
            for bits in (8, 4)
            for state in floats
        ),
        *(
            Build(
                f"score_candidates-{rows}",
                stage2,
                "score_candidates",
                {"states": "fp32", "rows": rows},
                {**CANDIDATES, "BY_TOKEN": False},
            )
            for rows in ("i8", "fp16", "bf16", "fp32")
        ),
        Build("best_tokens", stage2, "best_tokens", {}, dict(KEYS)),
        Build("open_clusters", stage1, "open_clusters", {}, {"BLOCK_K": _CLUSTERS}, selecting_warps(_CLUSTERS)),
        *(
            Build(
                f"score_opened-{rows}",
                logits,
                "score_opened",
                {"states": rows, "rows": rows, "exact": rows},
                {**token_sizes(1), "BY_TOKEN": True, "WIDE": False},
            )
            for rows in floats[1:]
        ),
        *(
            Build(
                f"spread_logits-{kind}",
                logits,
                "spread_logits",
                {"exact": kind, "logits": kind},
                column_sizes(1),
            )
            for kind in floats[1:]
        ),
    )


BUILDS = _builds()
