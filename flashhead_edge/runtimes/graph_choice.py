"""Which form of a graph ONNX Runtime runs: for the native library where it is usable, for GPUs, or the portable one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge import native
from flashhead_edge.errors import RuntimeUnavailableError
from flashhead_edge.runtimes.session import CPU_PROVIDER, CUDA_PROVIDERS

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

#: Graphs with attention, which GPUs have in float16 only.
_WITH_ATTENTION = ("decode", "dense")


def choose_graph(bundle: Bundle, name: str, providers: Sequence[str] = (CPU_PROVIDER,)) -> Path:
    """The file of a graph, in the form that runs best here; all forms have the same inputs and outputs.

    The native form is chosen if the bundle has it, the native library is usable, and only the CPU is asked for; the
    form for GPUs, whose cache is float16, if an NVIDIA GPU comes first.

    Args:
        bundle: An opened bundle.
        name: "head", "decode" or another name of a graph.
        providers: ONNX Runtime's execution providers.

    Returns:
        Path of the graph.

    Raises:
        BundleError: The bundle has no such graph.
        RuntimeUnavailableError: The bundle was exported without its form for GPUs.
    """
    graphs = bundle.manifest.graphs
    if providers[:1] and providers[0] in CUDA_PROVIDERS and name in _WITH_ATTENTION and name in graphs:
        if f"{name}_cuda" not in graphs:
            raise RuntimeUnavailableError(
                f"{providers[0]} cannot run this bundle's {graphs[name].file}.",
                found="attention in float32, which ONNX Runtime has on the CPU only",
                expected=f"a graph {name}_cuda",
                hint="export the model again, or choose the CPU",
            )
        name = f"{name}_cuda"
    elif f"{name}_native" in graphs and tuple(providers) == (CPU_PROVIDER,) and native.is_available():
        name = f"{name}_native"
    return bundle.file(bundle.graph(name).file)
