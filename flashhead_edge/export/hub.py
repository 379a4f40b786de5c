"""Models from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flashhead_edge.errors import OptionalDependencyError, SourceError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: What a model needs; nothing that runs code when it is read, nothing from sub-folders (other formats of the weights).
_WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt"]
_UNWANTED = ["*/*"]


def is_hub_id(source: str) -> bool:
    """Whether ``source`` looks like ``org/name`` and not like a path or a file."""
    return _HUB_ID.fullmatch(source) is not None and not source.endswith((".gguf", ".safetensors"))


def download(model_id: str, *, offline: bool, revision: str | None) -> Path:
    """Bring a model's files into the local Hub cache.

    Args:
        model_id: ``org/name``.
        offline: Use what the cache holds and no network; the environment variable HF_HUB_OFFLINE=1 does the same.
        revision: Branch, tag or commit; None for the main branch.

    Returns:
        The folder in the cache.

    Raises:
        SourceError: The model is not in the cache (offline), does not exist, is gated, or the network failed.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise OptionalDependencyError("huggingface_hub", "export", "Downloading a model") from error
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        folder = huggingface_hub.snapshot_download(
            model_id,
            revision=revision,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
            local_files_only=offline,
        )
    except errors.LocalEntryNotFoundError as error:
        raise _not_here(model_id, offline=offline, reason=error) from error
    except errors.GatedRepoError as error:
        raise SourceError(
            f"{model_id} asks its users to accept a licence first.",
            found=_first_line(error),
            hint=f"accept it on https://huggingface.co/{model_id} and log in with: hf auth login",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise SourceError(
            "There is no such model, neither here nor on the Hub.",
            found=f"{model_id}{'' if revision is None else f' at {revision}'}: {_first_line(error)}",
            expected="a model folder, a .gguf file, or a Hub id such as org/name",
            hint="check the spelling; private models need: hf auth login",
        ) from error
    except errors.HfHubHTTPError.__bases__ as error:  # OSError and all errors of the HTTP client, whichever it is
        raise _not_here(model_id, offline=False, reason=error) from error
    return Path(folder)


def _not_here(model_id: str, *, offline: bool, reason: Exception) -> SourceError:
    if offline:
        return SourceError(
            f"{model_id} is not on this machine, and the network may not be used.",
            found="no such folder, and no such model in the local Hub cache",
            hint=f"download it once while online: hf download {model_id}",
        )
    return SourceError(
        f"{model_id} could not be downloaded.",
        found=_first_line(reason),
        expected="a connection to https://huggingface.co",
        hint="check the network, or give a local folder; models in the local Hub cache work with --offline",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
