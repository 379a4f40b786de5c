"""Which version of a package is installed and works, asked of the package itself in a child process."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass

from flashhead_edge.errors import OptionalDependencyError, RuntimeUnavailableError
from flashhead_edge.runtimes.tensorrt.engine_build import import_package
from flashhead_edge.runtimes.tensorrt.generations import MODULES

_SECONDS = 120


@dataclass(frozen=True)
class Package:
    """An installed package that builds and runs engines.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        version: All of it, such as "1.7.1.116".
        targets: Compute capabilities that it builds for ahead of time; None where it builds for the GPU that is there.
    """

    backend: str
    version: str
    targets: tuple[str, ...] | None


def is_installed(backend: str) -> bool:
    """Whether Python finds a package; it is not imported.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".
    """
    return _is_found(MODULES[backend])


def probe(backend: str) -> Package:
    """Import a package in a child process: its libraries are large, and polygraphy takes one of the two only.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".

    Raises:
        OptionalDependencyError: It, or polygraphy, is not installed.
        RuntimeUnavailableError: It does not load.
    """
    for module in (MODULES[backend], "polygraphy"):
        if not _is_found(module):
            raise OptionalDependencyError(module, backend, "Building a TensorRT engine")
    command = [sys.executable, "-m", __name__, backend]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeUnavailableError(f"{backend} did not load within {_SECONDS} seconds.") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeUnavailableError(
            f"{backend} is installed, but does not load.",
            found=lines[-1] if lines else f"exit status {done.returncode}",
            hint="flashhead-edge doctor says which version fits this device",
        )
    facts = json.loads(done.stdout.splitlines()[-1])
    return Package(backend, facts["version"], None if facts["targets"] is None else tuple(facts["targets"]))


def _is_found(module: str) -> bool:
    """Whether there is such a module; a folder of that name beside a script, which Python takes for one, is none."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def describe(backend: str) -> dict[str, object]:
    """What the child says of a package.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".
    """
    package = import_package(backend)
    targets = None
    if backend == "tensorrt-rtx":
        names = [name[2:] for name in package.ComputeCapability.__members__ if name.startswith("SM")]
        targets = [f"{name[:-1]}.{name[-1]}" for name in names]
    return {"version": package.__version__, "targets": targets}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(sys.argv[1])) + "\n")
