"""Hidden states on disk: a safetensors file that any program can write.

Tensors: ``hidden`` [N, H] float32 or float16; optionally ``domain`` [N], any integer type, places in the JSON list of
names under ``domains`` in the metadata; optionally ``next_token`` [N] int64, -1 where nothing followed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import CalibrationError
from flashhead_edge.export.states import HiddenStates
from flashhead_edge.tensor_files import write_tensors

_FORMAT = "flashhead-states-1"


def save_states(states: HiddenStates, path: Path) -> None:
    """Write states; a failure leaves no half file.

    Args:
        states: The states.
        path: File to write.

    Raises:
        ExportError: The disk is full or not writable.
    """
    names, domain = np.unique(states.domain, return_inverse=True)
    tensors: dict[str, npt.NDArray[Any]] = {
        "hidden": np.ascontiguousarray(states.hidden, dtype=np.float32),
        "domain": domain.reshape(-1).astype(np.int64),
        "next_token": np.ascontiguousarray(states.next_token, dtype=np.int64),
    }
    metadata = {"format": _FORMAT, "domains": json.dumps([str(name) for name in names], ensure_ascii=False)}
    write_tensors(path, tensors, metadata)


def load_states(path: Path) -> HiddenStates:
    """Read states.

    Args:
        path: A safetensors file as :func:`save_states` writes it, or with the tensor ``hidden`` alone: the domain is
            then the file's stem, and no token is known to have followed.

    Returns:
        The states, ``hidden`` [N, H] float32.

    Raises:
        CalibrationError: The file is missing or damaged, a tensor has the wrong shape or type, a state is not finite,
            or a domain has no name.
    """
    tensors, metadata = _read(path)
    hidden = tensors.get("hidden")
    if hidden is None or hidden.ndim != 2 or hidden.dtype not in (np.float32, np.float16) or 0 in hidden.shape:
        raise CalibrationError(
            f"{path.name} holds no hidden states.",
            found=f"tensors {', '.join(sorted(tensors)) or '(none)'}" if hidden is None else _described(hidden),
            expected="a tensor 'hidden' [N, H], float32 or float16, N of at least 1",
        )
    hidden = hidden.astype(np.float32, copy=False)
    if bad := int((~np.isfinite(hidden).all(axis=1)).sum()):
        raise CalibrationError(
            f"{path.name} holds NaN or infinity.",
            found=f"{bad} of {len(hidden)} states are not finite",
            hint="float16 overflows beyond 65504: save the states as float32",
        )
    return HiddenStates(hidden, _domains(path, tensors, metadata, len(hidden)), _next_tokens(path, tensors, hidden))


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Tensors that we know and the metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            known = {"hidden", "domain", "next_token"} & set(file.keys())
            tensors = {name: file.get_tensor(name) for name in sorted(known)}
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: numpy has no such type (bfloat16)
        missing = not path.is_file()
        raise CalibrationError(
            f"The states file {path.name} cannot be read.",
            found=f"no file {path}" if missing else str(error),
            expected="a safetensors file with a tensor 'hidden' [N, H], float32 or float16",
            hint=None if missing else "copy or write the file again",
        ) from error


def _domains(
    path: Path, tensors: dict[str, npt.NDArray[Any]], metadata: dict[str, str], count: int
) -> npt.NDArray[np.str_]:
    """Domain of every state by name, [N]."""
    domain = tensors.get("domain")
    if domain is None:
        return np.full(count, path.stem)
    if domain.shape != (count,) or domain.dtype.kind not in "iu":
        raise CalibrationError(
            f"{path.name}: 'domain' does not fit the states.", found=_described(domain), expected=f"integers [{count}]"
        )
    try:
        names = json.loads(metadata.get("domains", "[]"))
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CalibrationError(
            f"{path.name}: 'domains' in the metadata is no list of names.",
            found=metadata["domains"][:80],
            expected='a JSON list such as ["en", "code"]',
        )
    if int(domain.min()) < 0 or int(domain.max()) >= len(names):
        raise CalibrationError(
            f"{path.name}: a domain has no name.",
            found=f"domains {int(domain.min())} to {int(domain.max())}, {len(names)} names",
            expected="a name in the metadata's JSON list 'domains' for each",
        )
    return np.asarray(names, dtype=np.str_)[domain.astype(np.int64)]


def _next_tokens(
    path: Path, tensors: dict[str, npt.NDArray[Any]], hidden: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Token after every state, -1 where unknown, [N]."""
    tokens = tensors.get("next_token")
    if tokens is None:
        return np.full(len(hidden), -1, dtype=np.int64)
    if tokens.shape != (len(hidden),) or tokens.dtype != np.int64 or int(tokens.min()) < -1:
        raise CalibrationError(
            f"{path.name}: 'next_token' does not fit the states.",
            found=_described(tokens),
            expected=f"int64 [{len(hidden)}], token ids or -1",
        )
    return tokens


def _described(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype.name} of shape {list(array.shape)}"
