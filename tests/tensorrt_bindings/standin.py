"""A module with exactly the names and arguments that a version of TensorRT has; it computes nothing.

What a version lacks is an ``AttributeError`` and a wrong argument a ``TypeError``, as with the real one. Methods return
an object of the class that they are said to return. Every call and every property set is written to the file that the
environment variable ``STANDIN_CALLS`` names, one a line.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
from inspect import BoundArguments, Parameter, Signature
from pathlib import Path
from typing import Any

NAMES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "names.json").read_text())
#: Of the graph that is "parsed".
INPUT, WIDTH = "hidden_states", 64
#: What properties hold and methods return where that matters, or what computes it; 0 elsewhere.
VALUES: dict[str, Any] = {
    "INetworkDefinition.num_inputs": 1,
    "INetworkDefinition.num_outputs": 0,
    "ITensor.name": INPUT,
    "ITensor.shape": (-1, WIDTH),
    "ITensor.is_shape_tensor": False,
    "ICudaEngine.num_layers": 7,
}
#: Names of the module for types.
ALIASES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
}
PACKAGE = """import sys
sys.path.append({root!r})
from tests.tensorrt_bindings.standin import fill
fill(globals(), {version!r})
"""


def write_package(folder: Path, version: str) -> None:
    """Write a module ``tensorrt`` of a version into a folder."""
    root = str(Path(__file__).parents[2])
    (folder / "tensorrt.py").write_text(PACKAGE.format(root=root, version=version))


def fill(module: dict[str, Any], version: str) -> None:
    """Fill a module with the names of a version."""
    for name, members in NAMES[version].items():
        if all(isinstance(told, int) for told in members.values()):
            module[name] = enum.IntEnum(name, list(members.items()))
        else:
            module[name] = _class(module, name, members)
    severity = {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}
    module["Logger"] = enum.IntEnum("Logger", list(severity.items()))
    for alias, member in ALIASES.items():
        if hasattr(module["DataType"], member):
            module[alias] = module["DataType"][member]
    module["init_libnvinfer_plugins"] = lambda logger, namespace: True
    module["__version__"] = version


def _say(line: str) -> None:
    with Path(os.environ["STANDIN_CALLS"]).open("a") as file:
        file.write(line + "\n")


def _class(module: dict[str, Any], name: str, members: dict[str, str]) -> type:
    """A class of a version."""
    body: dict[str, Any] = {"__init__": lambda self, *arguments: None, "__setattr__": _set}
    for member, told in members.items():
        place = f"{name}.{member}"
        body[member] = _method(module, place, told) if told else _property(place)
    if name == "IHostMemory":  # a buffer, and something that closes
        body |= {"__enter__": lambda self: self, "__exit__": lambda self, *error: None}
        del body["__init__"]
        return type(name, (bytes,), body)
    if name == "INetworkDefinition":
        body["__iter__"] = lambda self: iter(())
    return type(name, (), body)


def _set(self: Any, name: str, value: Any) -> None:
    """Set what there is; compiled classes take nothing else."""
    if not name.startswith("_") and not hasattr(type(self), name):
        raise AttributeError(name)
    object.__setattr__(self, name, value)


def _property(place: str) -> property:
    hidden = "_" + place.partition(".")[2]

    def read(self: Any) -> Any:
        value = VALUES.get(place, 0)
        return getattr(self, hidden, value() if callable(value) else value)

    def write(self: Any, value: Any) -> None:
        setattr(self, hidden, value)
        _say(f"{place} = {_text(value)}")

    return property(read, write)


def _method(module: dict[str, Any], place: str, told: str) -> Any:
    """A method that refuses other arguments than it has."""
    forms = [_form(form) for form in told.split(" | ")]

    def call(self: Any, *given: Any, **named: Any) -> Any:
        bound, returned = _bind(forms, given, named)
        _say(f"{place}({', '.join(f'{key}={_text(value)}' for key, value in bound.arguments.items())})")
        kind = module.get(returned)
        if callable(VALUES.get(place)):
            return VALUES[place](**bound.arguments)
        if returned == "IHostMemory":
            return kind(b"an engine of " + module["__version__"].encode())
        return kind() if isinstance(kind, type) else VALUES.get(place, {"bool": True, "None": None}.get(returned, 0))

    return call


def _bind(forms: list[tuple[Signature, str]], given: Any, named: Any) -> tuple[BoundArguments, str]:
    """The first way to call a method that takes these arguments."""
    for signature, returned in forms[:-1]:
        with contextlib.suppress(TypeError):
            return signature.bind(*given, **named), returned
    signature, returned = forms[-1]
    return signature.bind(*given, **named), returned


def _form(told: str) -> tuple[Signature, str]:
    """Arguments and the returned class of one way to call a method."""
    arguments, _, returned = told.partition(") -> ")
    parameters: list[Parameter] = []
    seen_default = False
    for item in filter(None, (part.strip() for part in arguments.strip("()").split(","))):
        kind = Parameter.VAR_POSITIONAL if item.startswith("*") else Parameter.POSITIONAL_OR_KEYWORD
        seen_default = seen_default or item.endswith("=")  # pybind11 allows more than Python
        default = None if seen_default else Parameter.empty
        parameters.append(Parameter(item.strip("*=") or "rest", kind, default=default))
    return Signature(parameters), returned


def _text(value: Any) -> str:
    """A value in a line: members of enumerations by name, objects by class."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    return re.sub(r"<.*\.(\w+) object at .*>", r"\1", repr(value))
