"""Memory that this process has used, and giving back what it no longer does."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """The most memory that the process has had resident, in bytes.

    On Linux from the kernel's high-water mark of this program: ``getrusage`` also counts what the process was before
    it started this program.
    """
    peak = peak_rss_bytes_of("self")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_rss_bytes_of(process: int | str) -> int | None:
    """The most memory that a running process has had resident, in bytes; None where the system does not say.

    Args:
        process: Its number.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def release_freed() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc); a fifth of a second at most.

    Reading the tokenizer of a large vocabulary leaves some hundred megabytes in pieces that glibc keeps for later.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))
