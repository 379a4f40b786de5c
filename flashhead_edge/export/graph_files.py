"""Graphs on disk: loaded without their weights, written atomically, checked where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge.errors import ExportError

if TYPE_CHECKING:
    import onnx


def load_graph(path: Path) -> onnx.ModelProto:
    """Load a graph and leave its weights in their files."""
    import onnx

    return onnx.load(path, load_external_data=False)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph whose weights lie in other files already; a failure leaves no half file.

    Args:
        model: The graph, with references to its weights.
        path: Where it goes; the references are relative to its folder.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(model.SerializeToString())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_graph(path: Path) -> None:
    """Run the ONNX checker with shape inference over a graph and the files it refers to.

    Raises:
        ExportError: The graph is not valid.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The graph {path.name} is not valid ONNX.", found=error) from error
