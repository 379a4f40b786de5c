"""Compiles the native library into the package: one call of a C++ compiler, as a step of the wheel's build.

The library is optional. Without a compiler, or with FLASHHEAD_EDGE_NATIVE=0 in the environment, the wheel holds Python
only and works the same, on the graphs of standard operators. ``python native/build_hook.py`` compiles it into a source
tree.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path(__file__).resolve().parent
TARGET = Path("flashhead_edge", "native", "_flashhead_edge.so")
#: No -march: every file names its own instruction set, and the best that the processor has is chosen at run time.
FLAGS = [
    *("-std=c++17", "-O3", "-DNDEBUG", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"),
    *("-fPIC", "-shared", "-fvisibility=hidden", "-ffunction-sections"),
    *("-static-libstdc++", "-static-libgcc", "-Wl,-s,--gc-sections"),
]


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the library to wheels and editable installations where it can be compiled."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a wheel with the library is for this platform, for any Python 3."""
        target = Path(self.root) / TARGET
        reason = compile_library(target)
        if reason is not None:
            self.app.display_warning(f"flashhead_edge is built without its native library: {reason}")
            return
        build_data["artifacts"].append(TARGET.as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")


def compile_library(target: Path) -> str | None:
    """Compile all sources into one shared library.

    Args:
        target: File to write, replaced at once when the compiler is done.

    Returns:
        None, or why there is no library.
    """
    if os.environ.get("FLASHHEAD_EDGE_NATIVE") == "0":
        return "FLASHHEAD_EDGE_NATIVE is 0"
    if sys.platform != "linux":
        return f"it is for Linux, this is {sys.platform}"
    found = (shutil.which(name) for name in ("c++", "g++", "clang++"))
    compiler = shlex.split(os.environ.get("CXX", "")) or [path for path in found if path][:1]
    if not compiler:
        return "no C++ compiler was found (c++, g++, clang++, or the one that CXX names)"
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    exports = f"-Wl,--version-script={SOURCES / 'exports.map'}"
    command = [*compiler, *FLAGS, exports, "-o", str(partial), *map(str, sorted(SOURCES.glob("*.cpp")))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{shlex.join(compiler)} failed: {done.stderr.strip()[-2000:]}"
        partial.replace(target)
    except OSError as error:
        return f"{shlex.join(compiler)} could not run: {error}"
    finally:
        partial.unlink(missing_ok=True)
    return None


if __name__ == "__main__":
    failure = compile_library(SOURCES.parent / TARGET)
    sys.exit(failure if failure is None else f"not built: {failure}")
