"""What may stand in a file of platforms: the fields of each table and the kinds of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8", "int4")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CAPABILITY = re.compile(r"\d{1,2}\.\d")


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    Attributes:
        accepts: The check.
        expected: Words for what passes it.
    """

    accepts: Callable[[Any], bool]
    expected: str


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _one_of(*values: str) -> Kind:
    return Kind(lambda value: isinstance(value, str) and value in values, f"one of {', '.join(values)}")


TEXT = Kind(_is_text, "a text")
_WHOLE = Kind(_is_whole, "a whole number above 0")
_NUMBER = Kind(_is_number, "a number above 0")
_TEXTS = Kind(_is_texts, "a list of texts, each once")
TABLE = Kind(lambda value: isinstance(value, dict), "a table")
_TABLES = Kind(lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value), "tables")
_FLAG = Kind(lambda value: isinstance(value, bool), "true or false")

#: Facts about a device: each needs an entry in ``sources``.
FIGURES: Mapping[str, Kind] = {
    "compute_capability": Kind(lambda v: _is_text(v) and bool(_CAPABILITY.fullmatch(v)), 'a text such as "8.7"'),
    "isa_features": _TEXTS,
    "memory_bytes": _WHOLE,
    "memory_bandwidth_gb_s": _NUMBER,
    "peak_int8_dense_tops": _NUMBER,
    "peak_int8_sparse_tops": _NUMBER,
    "peak_fp16_dense_tflops": _NUMBER,
    "peak_fp16_sparse_tflops": _NUMBER,
    "peak_fp4_sparse_tflops": _NUMBER,
    "max_power_watts": _NUMBER,
    "power_modes": _TEXTS,
    "precisions": Kind(lambda v: _is_texts(v) and set(v) <= set(PRECISIONS), f"a list of {', '.join(PRECISIONS)}"),
    "jetpacks": _TEXTS,
}
#: Choices of ours, which need none.
_CHOICES: Mapping[str, Kind] = {
    "title": TEXT,
    "family": TEXT,
    "runtimes": _TEXTS,
    "providers": _TEXTS,
    "export": TABLE,
    "build": TABLE,
    "notes": TEXT,
    "sources": TABLE,
    "shared": TEXT,
}
FIELDS = {**FIGURES, **_CHOICES}
SETTINGS: Mapping[str, Mapping[str, Kind]] = {
    "export": {
        "target": _one_of("ort", "tensorrt", "all"),
        "centroid_precision": _one_of("int4", "int8", "fp32"),
        "cluster_precision": _one_of("fp16", "fp32"),
        "body_precision": _one_of("int4", "int8", "fp32"),
        "max_positions": _WHOLE,
    },
    "build": {
        "backend": _one_of("tensorrt", "tensorrt-rtx"),
        "max_batch_size": _WHOLE,
        "workspace_bytes": _WHOLE,
        "on_device": _FLAG,
    },
}
TOP = {"documents": TABLE, "jetpack": _TABLES, "shared": TABLE, "platforms": TABLE}
RELEASE = {"version": TEXT, "cuda": TEXT, "tensorrt": TEXT, "sources": TABLE}
