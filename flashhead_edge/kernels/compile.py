"""Compile the kernels ahead of time, without a GPU: ``python -m flashhead_edge.kernels.compile -o FOLDER``.

The folder gets PTX and machine code of every build for every target, and ``kernels.json``, which says how to launch
them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from flashhead_edge.errors import FlashHeadError, OptionalDependencyError
from flashhead_edge.files import new_folder
from flashhead_edge.kernels.builds import BUILDS, DIVISIBLE, Build
from flashhead_edge.kernels.gpu_targets import GPU_TARGETS, GpuTarget
from flashhead_edge.kernels.ptx import assemble, keep_parameters

MANIFEST = "kernels.json"
SCHEMA_VERSION = 1


def compile_kernels(
    output: Path, targets: Iterable[GpuTarget] = GPU_TARGETS, *, force: bool = False
) -> list[dict[str, Any]]:
    """Compile every build for every target.

    Args:
        output: Folder to write.
        targets: Kinds of GPU.
        force: Replace the folder if it exists.

    Returns:
        The kernels as the manifest lists them.

    Raises:
        OptionalDependencyError: Triton is not installed.
        OptionError: The folder exists.
        ExportError: A kernel cannot be compiled, or the folder not written.
    """
    try:
        import triton
    except ImportError as error:
        raise OptionalDependencyError("triton", "torch", "Compiling kernels") from error
    with new_folder(output, force=force) as folder:
        kernels = [_compile(folder, build, target) for target in targets for build in BUILDS]
        manifest = {"schema_version": SCHEMA_VERSION, "triton_version": triton.__version__, "kernels": kernels}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return kernels


def _compile(folder: Path, build: Build, target: GpuTarget) -> dict[str, Any]:
    """Compile one kernel for one target, write its files and describe it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"flashhead_edge.kernels.{build.module}"), build.kernel)
    signature = {name: build.type_of(name) for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name in DIVISIBLE
    }
    options = {"num_warps": build.num_warps, "ptx_version": target.ptx_version, "enable_fp_fusion": True}
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # paths of this machine
        compiled = triton.compile(
            ASTSource(kernel, signature, constexprs=dict(build.constants), attrs=aligned),
            target=GPUTarget("cuda", target.capability, 32),
            options=options,
        )
    parameters = {name: kind for name, kind in signature.items() if kind != "constexpr"}
    ptx = keep_parameters(compiled.asm["ptx"], len(parameters))
    assembled = assemble(ptx, target.capability)
    files = {}
    for suffix, content in (("ptx", ptx.encode()), ("cubin", assembled.cubin)):
        name = f"{build.name}.{target.name}.{suffix}"
        (folder / name).write_bytes(content)
        files[suffix] = {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {
        "build": build.name,
        "kernel": build.kernel,
        "entry": compiled.metadata.name,
        "target": target.name,
        "ptx_version": target.ptx_version / 10,
        "parameters": parameters,
        "multiples_of_16": [name for name in parameters if name in DIVISIBLE],
        "constants": dict(build.constants),
        "threads": 32 * build.num_warps,
        "shared_bytes": compiled.metadata.shared,
        "registers": assembled.registers,
        "stack_bytes": assembled.stack_bytes,
        "spill_bytes": assembled.spill_bytes,
        **files,
    }


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--target",
    "names",
    multiple=True,
    type=click.Choice([target.name for target in GPU_TARGETS]),
    help="Kind of GPU; may be repeated. All by default.",
)
@click.option("--force", is_flag=True, help="Replace the folder if it exists.")
def main(output: Path, names: tuple[str, ...], force: bool) -> None:
    """Compile the kernels ahead of time; no GPU is needed."""
    targets = [target for target in GPU_TARGETS if not names or target.name in names]
    try:
        kernels = compile_kernels(output, targets, force=force)
    except FlashHeadError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    click.echo(f"{output}: {len(kernels)} kernels for {', '.join(target.name for target in targets)}")


if __name__ == "__main__":
    main()
