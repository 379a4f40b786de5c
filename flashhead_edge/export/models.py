"""Loading a model with transformers, for its hidden states and for the export of its body."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashhead_edge.errors import OptionalDependencyError, SourceError, UnsupportedModelError
from flashhead_edge.export.gguf_transformers import begin_as_the_file_says, shared_gguf_reader
from flashhead_edge.export.model_config import ModelConfig

if TYPE_CHECKING:
    from flashhead_edge.export.sources import ModelSource


def load_model(source: ModelSource, *, device: str = "cpu", trust_remote_code: bool = False) -> tuple[Any, Any]:
    """Load a model and its tokenizer in float32.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.
        device: Where the model computes, as torch names it.
        trust_remote_code: Allow code that comes with the model to run.

    Returns:
        The transformers model, in evaluation mode, and its tokenizer. What goes into the model's output embedding is
        what the head of :func:`~flashhead_edge.export.heads.read_head` takes. Multimodal models take text as it is.

    Raises:
        UnsupportedModelError: transformers does not know this kind of model, or not as GGUF.
        SourceError: transformers cannot read the files.
        OptionalDependencyError: A package that is needed for this is not installed.
    """
    torch, transformers = _import_transformers()
    factory = transformers.AutoModelForCausalLM
    if source.kind != "gguf" and ModelConfig.from_folder(source.path).multimodal:
        factory = transformers.AutoModelForImageTextToText
    where, options = _place(source)
    with _reading(source):
        tokenizer = _tokenizer(source, transformers, trust_remote_code=trust_remote_code)
        model = factory.from_pretrained(
            where, **options, local_files_only=True, trust_remote_code=trust_remote_code, dtype=torch.float32
        )
    return model.eval().to(device), tokenizer


def load_tokenizer(source: ModelSource) -> Any:
    """Load a model's tokenizer with transformers.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.

    Raises:
        SourceError: transformers cannot read the tokenizer.
        OptionalDependencyError: A package that is needed for this is not installed.
    """
    _, transformers = _import_transformers()
    with _reading(source):
        return _tokenizer(source, transformers, trust_remote_code=False)


def _tokenizer(source: ModelSource, transformers: Any, *, trust_remote_code: bool) -> Any:
    where, options = _place(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        where, **options, local_files_only=True, trust_remote_code=trust_remote_code
    )
    if source.kind == "gguf":
        begin_as_the_file_says(tokenizer, source.path)
    return tokenizer


def model_folder(source: ModelSource, scratch: Path, *, loaded: tuple[Any, Any] | None = None) -> Path:
    """A Hugging Face folder of the model, which body exporters can read.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.
        scratch: Folder to write to when the source is no such folder yet.
        loaded: Model and tokenizer from :func:`load_model`, to save loading a GGUF file once more.

    Returns:
        The source's own folder, or ``scratch`` with the de-quantized float32 model and its tokenizer.

    Raises:
        SourceError: As for :func:`load_model`.
    """
    if source.kind != "gguf":
        return source.path
    model, tokenizer = loaded if loaded is not None else load_model(source)
    # transformers would otherwise try to save the quantization that it has already undone.
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.__dict__.pop("quantization_config", None)
    scratch.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    return scratch


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the warnings and progress bars of transformers off the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _reading(source: ModelSource) -> Iterator[None]:
    """Read quietly, GGUF files once, and explain what transformers raises."""
    if source.kind == "gguf" and importlib.util.find_spec("accelerate") is None:
        raise OptionalDependencyError("accelerate", "export", "Loading a model from a GGUF file")
    with quiet_transformers(), shared_gguf_reader(source.path) if source.kind == "gguf" else nullcontext():
        try:
            yield
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as error:
            raise _explained(source, error) from error


def _explained(source: ModelSource, error: Exception) -> SourceError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if source.kind == "gguf" and "is not supported yet" in str(error):
        return UnsupportedModelError(
            "transformers cannot load this kind of model from a GGUF file.",
            found=lines[0],
            expected="a GGUF architecture that transformers converts, such as llama, qwen2, qwen3, gemma2 or gemma3",
            hint="export from the model's Hugging Face folder, or without body and calibration on its own states",
        )
    return SourceError(
        f"transformers cannot load {source.name}.",
        found=" ".join(lines[:4]),
        expected=f"a {source.model_type} model with a tokenizer that transformers reads without running model code",
        hint="a newer transformers may know it: pip install -U transformers",
    )


def _place(source: ModelSource) -> tuple[str, dict[str, str]]:
    """What to give ``from_pretrained`` for this source."""
    if source.kind == "gguf":
        return str(source.path.parent), {"gguf_file": source.path.name}
    return str(source.path), {}


def _import_transformers() -> tuple[Any, Any]:
    purpose = "Loading a model"
    try:
        import torch
    except ImportError as error:
        raise OptionalDependencyError("torch", "export", purpose) from error
    try:
        import transformers
    except ImportError as error:
        raise OptionalDependencyError("transformers", "export", purpose) from error
    return torch, transformers
