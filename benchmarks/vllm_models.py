"""Folders of the real models for vLLM: bfloat16 weights made of their .gguf files, and the same published."""

from __future__ import annotations

from pathlib import Path

from benchmarks.models import WORK, bundle_of, model_file
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError
from flashhead_edge.export.models import load_model, model_folder
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.publish import publish
from flashhead_edge.export.sources import resolve_source
from flashhead_edge.files import new_folder


def standard_folder(name: str) -> Path:
    """The model as a Hugging Face folder in bfloat16, made on first use.

    Args:
        name: One of :data:`benchmarks.models.MODELS`.
    """
    import torch

    output = WORK / f"{name}-bf16"
    if not (output / "config.json").is_file():
        source = resolve_source(str(model_file(name)))
        model, tokenizer = load_model(source)
        model.config.dtype = torch.bfloat16
        with new_folder(output, force=True) as folder:
            model_folder(source, folder, loaded=(model.to(torch.bfloat16), tokenizer))
    return output


def published_folder(name: str) -> Path:
    """The same model with the two-stage head of a default export, made on first use."""
    output = WORK / f"{name}-published"
    if not (output / "config.json").is_file():
        publish(_bundle(name), standard_folder(name), output, force=True)
    return output


def _bundle(name: str) -> Bundle:
    """The demonstration's bundle if it is there, or one of the head alone; both have the default export's index."""
    try:
        return Bundle.open(WORK / f"{name}-int4-bundle")
    except BundleError:
        return bundle_of(name, ExportOptions(body_precision=None), label="head-bundle")
