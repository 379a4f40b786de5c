"""Profiles in a bundle's folder ``profiles``, which the manifest does not list: hashes stay as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge import layout
from flashhead_edge.files import write_text
from flashhead_edge.profiling.record import Profile, read_profile

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle


def save_profile(bundle: Bundle, profile: Profile) -> Path:
    """Write a profile into its bundle, whole or not at all.

    Args:
        bundle: The bundle.
        profile: What was measured or predicted.

    Returns:
        The file, named after the platform, the head and the time.

    Raises:
        ExportError: The disk is full or not writable.
    """
    folder = bundle.path / layout.PROFILES
    when = re.sub(r"[^0-9T]", "", (profile.taken_at or "predicted").partition("+")[0]) or "predicted"
    path = folder / f"{profile.platform or 'unknown-platform'}.{profile.model.head}.{when}.json"
    write_text(path, profile.to_json())
    return path


def profiles_of(bundle: Bundle) -> list[Profile]:
    """Every profile in a bundle, the oldest first.

    Args:
        bundle: The bundle.

    Returns:
        The profiles.

    Raises:
        ProfileError: One of them cannot be read.
    """
    files = sorted((bundle.path / layout.PROFILES).glob("*.json"))
    return sorted(map(read_profile, files), key=lambda profile: profile.taken_at or "")
