"""Heads that both implementations of the operators must compute, the Triton kernels and plain torch."""

from __future__ import annotations

import torch

FEATURES = {
    "plain": {},
    "bias": {"bias": True},
    "all": {"bias": True, "logit_scale": 2.5, "logit_softcap": 30.0},
}
#: V, H, C, P, B: sizes that divide nothing, rows shorter and longer than a block, one probe and all of them.
SHAPES = [
    (149, 40, 6, 4, 1),
    (149, 40, 6, 25, 3),
    (60, 300, 7, 1, 2),
    (257, 17, 1, 9, 64),
    (90, 513, 33, 2, 5),
]
ROWS = ["float32", "float16", "bfloat16", "int8"]
#: Types of states, and of full-width logits.
STATES = [torch.float32, torch.float16, torch.bfloat16]
