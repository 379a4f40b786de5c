"""Writes ``names.json``: names and arguments of TensorRT's Python API, from the wheels of its bindings.

    pip download --no-deps -d wheels tensorrt-cu12-bindings==10.3.0      # and other versions; 8.6.1: tensorrt-bindings
    python tests/tensorrt_bindings/read_names.py wheels/*.whl

The wheels hold the compiled module without the libraries that it calls. Libraries of the same names, made here with
empty functions, let it be imported: nothing in it works, but it tells its classes, and the arguments of every method.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Classes that polygraphy's loaders and our runtime touch.
CLASSES = (
    "Builder",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "Runtime",
)
ENUMERATIONS = (
    "BuilderFlag",
    "DataType",
    "DeviceType",
    "EngineCapability",
    "HardwareCompatibilityLevel",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParserFlag",
    "PreviewFeature",
    "ProfilingVerbosity",
    "QuantizationFlag",
    "RuntimePlatform",
    "TacticSource",
    "TensorIOMode",
    "TensorLocation",
    "TilingOptimizationLevel",
)


def import_bindings(folder: Path) -> Any:
    """Import the bindings of an unpacked wheel over libraries of empty functions."""
    (module,) = folder.glob("tensorrt_bindings/tensorrt*.so")
    dynamic = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", module], capture_output=True, text=True, check=True
    ).stdout
    source = folder / "empty.c"
    names = [line.split()[-1] for line in symbols.splitlines()]
    wanted = [name for name in names if re.match(r"(create|get|init)[A-Z]\w*$|_ZN\d+nv", name)]
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for library in re.findall(r"NEEDED.*\[(libnv(?:infer|onnxparser|parsers)[^\]]*)\]", dynamic):
        path = folder / library
        subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", path, source], check=True)
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder))
    import tensorrt_bindings

    return tensorrt_bindings


def describe(module: Any) -> dict[str, Any]:
    """Names of a version, by class: methods with arguments, properties, and enumerations with numbers."""
    classes: dict[str, Any] = {}
    for name in CLASSES:
        kind = getattr(module, name)
        members = [member for member in dir(kind) if not member.startswith(("_", "add_"))]
        members += ["add_optimization_profile"] if name == "IBuilderConfig" else []
        classes[name] = {member: signature(getattr(kind, member)) for member in sorted(members)}
    for name in ENUMERATIONS:
        if hasattr(module, name):
            classes[name] = {key: int(value) for key, value in getattr(module, name).__members__.items()}
    return classes


def signature(member: Any) -> str:
    """ "(flags=) -> INetworkDefinition" for a method, all of several with " | " between; "" for anything else."""
    lines = [line for line in (getattr(member, "__doc__", None) or "").splitlines() if "(self: " in line]
    return "" if isinstance(member, property) else " | ".join(_one_signature(line) for line in lines)


def _one_signature(line: str) -> str:
    inside, _, returned = line.partition("(self: ")[2].rpartition(") -> ")
    depth, parts = 0, [""]
    for letter in inside:
        depth += (letter in "[({<") - (letter in "])}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    arguments = [part.split(":")[0].strip() + ("=" if "=" in part else "") for part in parts[1:]]
    return f"({', '.join(arguments)}) -> {returned.rpartition('.')[2]}"


def read_wheel(wheel: str) -> dict[str, Any]:
    """Names of one wheel; in a process of its own, as all modules have the same name."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
        module = import_bindings(Path(folder))
        return {module.__version__: describe(module)}


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        sys.stdout.write(json.dumps(read_wheel(sys.argv[2])))
    else:
        versions: dict[str, Any] = {}
        for path in sys.argv[1:]:
            told = subprocess.run([sys.executable, __file__, "--one", path], stdout=subprocess.PIPE, check=True)
            versions.update(json.loads(told.stdout))
        ordered = dict(sorted(versions.items(), key=lambda item: [int(part) for part in item[0].split(".")]))
        lines = [
            f'"{version}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(told)}' for name, told in classes.items()) + "}"
            for version, classes in ordered.items()
        ]
        (HERE / "names.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
