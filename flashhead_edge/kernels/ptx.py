"""PTX text: parameters that Triton adds, and what the assembler says of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flashhead_edge.errors import ExportError

_ENTRY = re.compile(r"(\.visible \.entry \w+\()([^)]*)(\))")


@dataclass(frozen=True)
class Assembled:
    """What the assembler made of PTX.

    Attributes:
        cubin: The machine code.
        registers: Registers of a thread.
        stack_bytes: Local memory of a thread.
        spill_bytes: Of which written because registers ran out.
    """

    cubin: bytes
    registers: int
    stack_bytes: int
    spill_bytes: int


def keep_parameters(ptx: str, count: int) -> str:
    """Drop what Triton adds to a kernel's parameters, so that anyone can launch it with its own only.

    Triton passes two pointers to scratch memory to every kernel; these kernels use none.

    Args:
        ptx: PTX of one kernel.
        count: How many parameters the kernel declares.

    Returns:
        PTX whose entry takes the first ``count`` parameters.

    Raises:
        ExportError: The entry is not where it is expected, or a parameter that would be dropped is used.
    """
    entry = _ENTRY.search(ptx)
    parameters = entry.group(2).split(",") if entry else []
    if entry is None or len(parameters) < count:
        raise ExportError("The PTX is not of the expected form.", found=f"{len(parameters)} parameters", expected=count)
    body = ptx[entry.end() :]
    names = [parameter.split()[-1] for parameter in parameters[count:]]
    used = [name for name in names if re.search(rf"\b{name}\b", body)]
    if used:
        raise ExportError("The kernel needs scratch memory, which only Triton would give it.", found=", ".join(used))
    return ptx[: entry.end(1)] + ",".join(parameters[:count]).rstrip() + "\n" + ptx[entry.start(3) :]


def assemble(ptx: str, capability: int) -> Assembled:
    """Assemble with the ``ptxas`` that came with Triton.

    Args:
        ptx: PTX of one kernel.
        capability: Compute capability times ten.

    Returns:
        The machine code and its resources.

    Raises:
        ExportError: The assembler refuses the PTX.
    """
    from triton.backends.nvidia.compiler import get_ptxas

    arch = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx, encoding="utf-8")
        name = arch.group(1) if arch else f"sm_{capability}"
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={name}", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        numbers = [
            re.search(pattern, done.stderr)
            for pattern in (r"Used (\d+) registers", r"(\d+) bytes stack frame", r"(\d+) bytes spill stores")
        ]
        if done.returncode or None in numbers:
            raise ExportError(f"ptxas does not assemble the kernel for {name}.", found=done.stderr.strip()[-2000:])
        return Assembled(target.read_bytes(), *(int(number.group(1)) for number in numbers if number))
