"""TensorRT's profile of an engine, as ``trtexec --exportProfile`` writes it: the time of every layer.

The file is a JSON list. The first item has the number of iterations, ``{"count": N}``; the others are layers with
``name``, ``timeMs`` (all iterations), ``averageMs``, ``percentage`` and, from TensorRT 8.5 on, ``medianMs``. Source:
``Profiler::exportJSONProfile`` in samples/common/sampleReporting.cpp of https://github.com/NVIDIA/TensorRT.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from flashhead_edge.errors import ProfileError
from flashhead_edge.profiling import record
from flashhead_edge.profiling.onnxruntime_trace import stage_of

#: A fused layer is named after its nodes, such as "/head/a/Mul + /head/a/ReduceSum" or "{ForeignNode[/head/a.../b]}".
_NODES = re.compile(r"/head/[\w./-]*?(?=\.\.\.|[^\w./-]|$)")


class LayerTimes(NamedTuple):
    """What a file says.

    Attributes:
        iterations: Runs of the engine.
        stages: Milliseconds of a run by stage, in the order of a step. Layers that move or cast between others and name
            no node of the head count as the host's.
        spanning: Layers with nodes of several stages; they count for the stage of their first node.
    """

    iterations: int
    stages: dict[str, float]
    spanning: tuple[str, ...]


def read_layers(path: Path, *, head: str = "two-stage") -> LayerTimes:
    """Read a profile of an engine of ``head.tensorrt.onnx`` or ``dense.tensorrt.onnx``.

    Args:
        path: The JSON file.
        head: "two-stage" or "dense".

    Returns:
        Times by stage.

    Raises:
        ProfileError: The file is not such a profile, or no layer is the head's.
    """
    try:
        (first, *layers) = json.loads(path.read_text(encoding="utf-8"))
        count = int(first["count"])
        times = [(str(layer["name"]), float(layer.get("medianMs", layer["averageMs"]))) for layer in layers]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProfileError(
            f"{path.name} is not a profile of TensorRT.",
            found=f"{type(error).__name__}: {error}",
            expected="a JSON list, {count} first, then {name, timeMs, averageMs, percentage} for each layer",
            hint="write one with: trtexec --loadEngine=ENGINE --exportProfile=FILE --separateProfileRun",
        ) from error
    stages: dict[str, float] = defaultdict(float)
    spanning = []
    for name, ms in times:
        found = [stage_of(node, head=head) for node in _NODES.findall(name)]
        stages[found[0] if found else record.HOST] += ms
        if len(set(found)) > 1:
            spanning.append(name)
    if not set(stages) - {record.HOST}:
        raise ProfileError(
            f"No layer in {path.name} is of the head.",
            found=f"{len(times)} layers",
            expected="layers named after nodes such as /head/centroids/MatMul",
        )
    order = [*record.HEAD_STAGES, record.HOST]
    return LayerTimes(count, {name: stages[name] for name in order if name in stages}, tuple(spanning))
