"""A two-stage LM head for small language models, from edge boards to GPU servers.

>>> from flashhead_edge import Bundle, Generator  # doctest: +SKIP
>>> Generator(Bundle.open("gemma")).generate("The capital of France is").text  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flashhead_edge._version import __version__

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.errors import FlashHeadError
    from flashhead_edge.export.exporter import export_bundle
    from flashhead_edge.generation import Generation
    from flashhead_edge.generator import Generator
    from flashhead_edge.index.head_index import HeadIndex
    from flashhead_edge.lm_head import LmHead

#: Public name -> module that holds it, imported at first use so that none costs those who do not use it.
_MODULES = {
    "Bundle": "flashhead_edge.bundle",
    "FlashHeadError": "flashhead_edge.errors",
    "Generation": "flashhead_edge.generation",
    "Generator": "flashhead_edge.generator",
    "HeadIndex": "flashhead_edge.index.head_index",
    "LmHead": "flashhead_edge.lm_head",
    "export_bundle": "flashhead_edge.export.exporter",
}

__all__ = [
    "Bundle",
    "FlashHeadError",
    "Generation",
    "Generator",
    "HeadIndex",
    "LmHead",
    "__version__",
    "export_bundle",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'flashhead_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
