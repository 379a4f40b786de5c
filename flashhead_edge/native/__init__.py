"""The native library: kernels that ONNX Runtime and we call instead of standard operators, where it was compiled.

It is an optional part of the wheel (see docs/native.md). Everything works without it, on the graphs of standard
operators; ``FLASHHEAD_EDGE_NATIVE=0`` in the environment turns it off.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path

from flashhead_edge.errors import RuntimeUnavailableError

#: Set to 0, it turns the native library off.
SWITCH = "FLASHHEAD_EDGE_NATIVE"
LIBRARY = Path(__file__).with_name("_flashhead_edge.so")
#: Version of the C functions that this package calls.
_ABI = 5


def is_available() -> bool:
    """Whether the native library can be used; :func:`unavailable_because` has the reason where it cannot."""
    return unavailable_because() is None


def unavailable_because() -> str | None:
    """Why the native library cannot be used here, or None where it can.

    Raises:
        RuntimeUnavailableError: ``FLASHHEAD_EDGE_NATIVE`` is neither 0 nor 1.
    """
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise RuntimeUnavailableError(
            f"{SWITCH} has a value that means nothing.", found=switch, expected="0 (off) or 1 (on, as without it)"
        )
    if switch == "0":
        return f"{SWITCH} is 0"
    return _load()[1]


def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        RuntimeUnavailableError: It is absent or turned off.
    """
    reason = unavailable_because()
    loaded = _load()[0]
    if reason is not None or loaded is None:
        raise RuntimeUnavailableError(
            "The native library of flashhead_edge cannot be used.",
            found=reason,
            hint="install flashhead-edge where a C++ compiler is, or use the graphs of standard operators",
        )
    return loaded


def kernels() -> str:
    """Name of the kernels in use: "avx512-vnni", "avx2", "neon" or "scalar".

    Raises:
        RuntimeUnavailableError: The library is absent or turned off.
    """
    return str(library().flashhead_kernels().decode())


def use_kernels(name: str | None) -> None:
    """Choose kernels for the whole process, to compare them; None chooses the best for this processor again.

    Raises:
        RuntimeUnavailableError: The library is absent, or it or this processor has no such kernels.
    """
    if library().flashhead_use_kernels(None if name is None else name.encode()):
        raise RuntimeUnavailableError(f"There are no kernels named {name!r} here.", found=kernels())


@lru_cache(maxsize=1)
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """Load the library once: it, or why there is none."""
    if not LIBRARY.is_file():
        return None, "it was not compiled when flashhead_edge was installed"
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
    except OSError as error:  # another architecture, or a C library that is too old
        return None, f"it does not load: {error}"
    if loaded.flashhead_abi() != _ABI:
        return None, "it was compiled for another version of flashhead_edge"
    loaded.flashhead_kernels.restype = ctypes.c_char_p
    loaded.flashhead_use_kernels.argtypes = [ctypes.c_char_p]
    return loaded, None
