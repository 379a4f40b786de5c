"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flashhead_edge.errors import ExportError, OptionError


@contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary sibling folder that becomes ``path`` when the block ends well and vanishes otherwise.

    A killed process leaves only such a sibling, which the next call for the same path removes.

    Args:
        path: The folder to make.
        force: Replace what is there.

    Yields:
        The folder to write into.

    Raises:
        OptionError: Something is at ``path`` and ``force`` is off, or it is no folder, or its parent is missing.
        ExportError: The disk is full or not writable.
    """
    if path.exists() and not path.is_dir():
        raise OptionError(f"{path} is a file.", expected="a folder to write, or a new name")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise OptionError(f"{path} exists.", hint="choose another output, or replace it with --force")
    if not path.absolute().parent.is_dir():
        raise OptionError(f"The folder that {path} would lie in does not exist.", hint="create it first")
    _remove_abandoned(path)
    scratch = path.absolute().with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        scratch.mkdir()
        yield scratch
        _move_into_place(scratch, path)
    except OSError as error:
        raise ExportError(
            f"Writing {path} failed; nothing was left behind.",
            found=f"{error.strerror or error} ({error.filename})" if error.filename else error,
            hint="make room on the disk, or choose another output folder",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; otherwise as :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary sibling, which replaces what is there; its folder is made where it is missing.

    Args:
        path: The file.
        content: What to write.

    Raises:
        ExportError: The disk is full or not writable.
    """
    scratch = path.absolute().with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        raise ExportError(
            f"Writing {path} failed; nothing was left behind.",
            found=error.strerror or error,
            hint="make room on the disk, or choose another place",
        ) from error
    finally:
        with suppress(OSError):
            scratch.unlink()


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start what cannot fit.

    Raises:
        ExportError: Fewer than ``needed_bytes`` are free where ``folder`` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ExportError(
            "The disk is too full for the bundle.",
            found=f"{free / 1e6:.0f} MB free",
            expected=f"about {needed_bytes / 1e6:.0f} MB",
            hint="make room, or choose an output folder on another disk",
        )


def _move_into_place(scratch: Path, path: Path) -> None:
    """Rename; what was there is moved aside first and removed last."""
    if not path.exists():
        scratch.rename(path)
        return
    aside = path.absolute().with_name(f".{path.name}.replaced-{os.getpid()}")
    path.rename(aside)
    try:
        scratch.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of earlier attempts."""
    for leftover in path.absolute().parent.glob(f".{path.name}.partial-*"):
        owner = leftover.name.rpartition("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(leftover, ignore_errors=True)
