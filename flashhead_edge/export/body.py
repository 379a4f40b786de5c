"""Exports the decoder body, everything between embedding and head, as ``body.onnx`` with its weights beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from flashhead_edge import layout
from flashhead_edge.errors import BodyExportError, ExportError, OptionalDependencyError, OptionError, did_you_mean
from flashhead_edge.export.body_data import write_body_data
from flashhead_edge.export.body_graph import check_interface, tidy_body
from flashhead_edge.export.body_support import NO_BODY_HINT, read_supported_config
from flashhead_edge.export.graph_files import check_graph, load_graph, save_graph
from flashhead_edge.progress import Progress, no_progress

Precision = Literal["int4", "int8", "fp32"]

_STAGE = "export body"
_PACKAGES = ("onnxruntime_genai", "onnxruntime", "onnx", "onnx_ir", "torch", "transformers", "tqdm")
_LAYER_LINE = re.compile(r"Reading layer (\d+)")


@dataclass(frozen=True)
class BodyInfo:
    """What a runtime has to know of ``body.onnx``; names are by layer.

    Attributes:
        precision: Of the weights: "int8" or "int4" (the most sensitive matrices stay int8) in blocks with float32
            activations, or "fp32".
        hidden_size: H of ``inputs_embeds`` and ``hidden_states`` [B, S, H] float32.
        num_layers: Layers, each with a cache.
        num_kv_heads: Second dimension of a cache.
        head_dim: Last dimension of a cache, [B, num_kv_heads, positions, head_dim] float32.
        max_positions: The longest context in tokens.
        past_key_names: Inputs with the cached keys.
        past_value_names: Inputs with the cached values.
        present_key_names: Outputs with the keys, the new ones appended.
        present_value_names: Outputs with the values, the new ones appended.
    """

    precision: Precision
    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    past_key_names: tuple[str, ...]
    past_value_names: tuple[str, ...]
    present_key_names: tuple[str, ...]
    present_value_names: tuple[str, ...]


def export_body(
    model_folder: Path,
    output: Path,
    *,
    precision: Precision,
    max_positions: int | None = None,
    progress: Progress = no_progress,
) -> BodyInfo:
    """Write ``body.onnx`` and ``body.onnx.data``.

    The model builder runs in a process of its own, without network, in a scratch folder beside ``output`` that is
    removed afterwards, whatever happens.

    Args:
        model_folder: Hugging Face folder with config, weights and tokenizer.
        output: Existing folder to write into.
        precision: Of the weights.
        max_positions: Cap of the context in tokens; the rotary tables of long contexts outweigh a small body.
        progress: Told about every layer.

    Returns:
        The graph's facts.

    Raises:
        BodyExportError: The architecture is not supported, or the builder failed or was killed.
        OptionalDependencyError: A package that the builder needs is missing.
        OptionError: Precision or cap make no sense.
    """
    if precision not in get_args(Precision):
        raise OptionError("Unknown body precision.", found=precision, hint=did_you_mean(precision, get_args(Precision)))
    if max_positions is not None and max_positions < 1:
        raise OptionError("The context must hold a token.", found=max_positions, expected="at least 1")
    _require_packages()
    config = read_supported_config(model_folder, max_positions)
    num_layers = int(config["num_hidden_layers"])
    command = [str(model_folder.resolve()), ".", precision]
    if max_positions is not None:
        command += ["--max-positions", str(max_positions)]
    with tempfile.TemporaryDirectory(dir=output.resolve().parent, prefix=f".{output.name}-body-") as scratch:
        progress(_STAGE, 0, num_layers + 1)
        _run_builder(command, Path(scratch), num_layers, progress)
        info = _finish(Path(scratch), output, precision)
    progress(_STAGE, num_layers + 1, num_layers + 1)
    return info


def _require_packages() -> None:
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise OptionalDependencyError(package, "export", "Exporting the decoder body")


def _run_builder(arguments: list[str], scratch: Path, num_layers: int, progress: Progress) -> None:
    """Run :mod:`~flashhead_edge.export.body_builder` in ``scratch`` and turn its failure into an error."""
    package_parent = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(package_parent), os.environ.get("PYTHONPATH")])),
    }
    last_lines: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        [sys.executable, "-m", "flashhead_edge.export.body_builder", *arguments],
        cwd=scratch,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.strip():
                    last_lines.append(line.rstrip())
                if match := _LAYER_LINE.match(line):
                    progress(_STAGE, min(int(match[1]) + 1, num_layers), num_layers + 1)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _failure(process.returncode, list(last_lines))


def _failure(status: int, last_lines: list[str]) -> BodyExportError:
    """The error for a builder that ended with ``status``, negative for a signal."""
    output = "the builder's last lines:\n    " + "\n    ".join(last_lines or ["(none)"])
    if status == -signal.SIGKILL:
        return BodyExportError(
            "The model builder was killed, most likely because memory ran out.",
            found=output,
            expected="memory for the weights in float32, and as much again while they are quantized",
            hint="export on a machine with more memory and copy the bundle, or export without a body (--no-body)",
        )
    if status < 0:
        return BodyExportError(f"The model builder died of {signal.Signals(-status).name}.", found=output)
    missing = re.search(r"No module named '([\w.]+)'", last_lines[-1] if last_lines else "")
    if missing:
        hint = f"the package {missing[1]!r} is missing; pip install 'flashhead-edge[export]'"
    else:
        hint = f"check that Transformers loads the model, or {NO_BODY_HINT}"
    return BodyExportError(f"The model builder failed with exit status {status}.", found=output, hint=hint)


def _finish(scratch: Path, output: Path, precision: Precision) -> BodyInfo:
    """Give the builder's files their names and make its graph a standard one."""
    decoder = json.loads((scratch / "genai_config.json").read_text(encoding="utf-8"))["model"]
    facts = decoder["decoder"]
    layers = range(facts["num_hidden_layers"])
    info = BodyInfo(
        precision=precision,
        hidden_size=facts["hidden_size"],
        num_layers=facts["num_hidden_layers"],
        num_kv_heads=facts["num_key_value_heads"],
        head_dim=facts["head_size"],
        max_positions=decoder["context_length"],
        past_key_names=tuple(f"past_key_values.{layer}.key" for layer in layers),
        past_value_names=tuple(f"past_key_values.{layer}.value" for layer in layers),
        present_key_names=tuple(f"present.{layer}.key" for layer in layers),
        present_value_names=tuple(f"present.{layer}.value" for layer in layers),
    )
    model = load_graph(scratch / "model.onnx")
    check_interface(
        model.graph, num_layers=info.num_layers, num_kv_heads=info.num_kv_heads, hidden_size=info.hidden_size
    )
    recorded = ("precision", "num_layers", "num_kv_heads", "head_dim", "max_positions")
    metadata = {name: str(getattr(info, name)) for name in recorded}
    tidy_body(model, head_dim=info.head_dim, metadata=metadata)
    graph_path, data_path = output / layout.BODY_GRAPH, output / layout.BODY_DATA
    try:
        write_body_data(model, scratch / "model.onnx.data", data_path)
        save_graph(model, graph_path)
        check_graph(graph_path)
    except (OSError, ExportError) as error:
        graph_path.unlink(missing_ok=True)
        data_path.unlink(missing_ok=True)
        if isinstance(error, ExportError):
            raise
        raise BodyExportError("The body's files could not be written.", found=error) from error
    return info
