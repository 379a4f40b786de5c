"""Which form of a graph ONNX Runtime runs: that for the native library where it is usable, or the portable one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge import native
from flashhead_edge.runtimes.session import CPU_PROVIDER

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle


def choose_graph(bundle: Bundle, name: str, providers: Sequence[str] = (CPU_PROVIDER,)) -> Path:
    """The file of a graph, in the form that runs best here; both forms have the same inputs and outputs.

    The native form is chosen if the bundle has it, the native library is usable, and only the CPU is asked for.

    Args:
        bundle: An opened bundle.
        name: "head", "decode" or another name of a graph.
        providers: ONNX Runtime's execution providers.

    Returns:
        Path of the graph.

    Raises:
        BundleError: The bundle has no such graph.
    """
    native_name = f"{name}_native"
    if native_name in bundle.manifest.graphs and tuple(providers) == (CPU_PROVIDER,) and native.is_available():
        name = native_name
    return bundle.file(bundle.graph(name).file)
