"""ONNX Runtime's own profile of a session: the times of its nodes, run by run."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from flashhead_edge.errors import ProfileError
from flashhead_edge.profiling import record

_SUFFIX = "_kernel_time"
_RUN = "model_run"
#: Beginnings of the names of nodes, by stage; docs/bundle-format.md has the names. What is no node of the head is the
#: body, the embedding of the token included.
_PLACES = (
    ("/head/projection", record.CENTROIDS),
    ("/head/centroids", record.CENTROIDS),
    ("/head/select", record.TOP_K),
    ("/head/batch", record.TOP_K),
    ("/head/", record.GATHER_DOT),
)
#: The whole head as one node; :mod:`flashhead_edge.native.phases` knows its parts.
NATIVE_HEAD = "native head"
_NATIVE_NODE = "/head/TwoStageHead"


def stage_of(node: str, *, head: str = "two-stage") -> str:
    """The stage that a node belongs to, by its name.

    Args:
        node: Name in the graph; a name that ONNX Runtime made when it joined nodes begins with that of one of them.
        head: "two-stage" or "dense".
    """
    if node.startswith(_NATIVE_NODE):
        return NATIVE_HEAD
    if head == "dense" and node.startswith("/head/"):
        return record.DENSE_HEAD
    return next((stage for beginning, stage in _PLACES if node.startswith(beginning)), record.BODY)


def read_runs(path: Path, *, head: str = "two-stage") -> list[dict[str, float]]:
    """Read a profile that a session wrote at its end.

    Args:
        path: The JSON file, in the trace event format.
        head: "two-stage" or "dense".

    Returns:
        One dictionary a run, in order: milliseconds of its nodes by stage. ONNX Runtime cuts the time of every node to
        whole microseconds.

    Raises:
        ProfileError: The file is not such a profile.
    """
    try:
        events = json.loads(path.read_text(encoding="utf-8"))
        runs: list[dict[str, float]] = []
        stages: dict[str, float] = defaultdict(float)
        for event in events:
            name = event.get("name", "")
            if event.get("cat") == "Node" and name.endswith(_SUFFIX):
                stages[stage_of(name.removesuffix(_SUFFIX), head=head)] += event["dur"] / 1e3
            elif event.get("cat") == "Session" and name == _RUN:  # written when the run ends, after its nodes
                runs.append(dict(stages))
                stages.clear()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProfileError(
            f"{path.name} is not a profile of ONNX Runtime.",
            found=f"{type(error).__name__}: {error}",
            expected="a JSON list of events, as a session with profiling writes it",
        ) from error
    return runs
