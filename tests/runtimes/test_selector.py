"""The selector against the table in docs/platforms.md, which is its behaviour."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flashhead_edge.errors import OptionError, RuntimeUnavailableError
from flashhead_edge.platforms.detection import detect
from flashhead_edge.platforms.overrides import PREFIX
from flashhead_edge.runtimes import RUNTIMES
from flashhead_edge.runtimes.selector import CANDIDATES, PURPOSES, judge, select

PAGE = Path(__file__).parents[2] / "docs" / "platforms.md"
ALL_GRAPHS = frozenset({"head", "decode", "dense", "head_tensorrt"})


def table():
    text = PAGE.read_text(encoding="utf-8").split("<!-- behaviour -->")[1].split("<!-- /behaviour -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]
    assert len(rows) > 10
    return [pytest.param(*row, id=f"{row[1]}: {row[0]}") for row in rows]


def device(tmp_path, given):
    environ = {PREFIX + name: value for name, value in (item.split("=", 1) for item in re.findall("`([^`]+)`", given))}
    environ.setdefault(f"{PREFIX}GPU_NAME", "none")
    return detect(tmp_path, environ=environ, try_providers=False)


@pytest.mark.parametrize(("given", "purpose", "chosen", "because"), table())
def test_choices_are_those_of_the_documentation(tmp_path, given, purpose, chosen, because):
    facts = device(tmp_path, given)
    choices = judge(facts, purpose, graphs=ALL_GRAPHS)
    assert [choice.candidate for choice in choices] == list(CANDIDATES)
    assert all(choice.reason for choice in choices)
    if chosen == "none":
        assert not any(choice.chosen for choice in choices)
        assert because in {choice.reason for choice in choices}
        with pytest.raises(RuntimeUnavailableError, match=re.escape(because)):
            select(facts, purpose, graphs=ALL_GRAPHS)
    else:
        best = select(facts, purpose, graphs=ALL_GRAPHS)
        assert (best.candidate.name, best.reason) == (chosen, because)
        assert [choice.candidate.name for choice in choices if choice.chosen] == [chosen]


INTEL = "`CPU_MODEL=Intel Xeon` `PACKAGES=onnxruntime=1.20.0,openvino=2026.4.0`"


def test_what_is_asked_for_is_taken(tmp_path):
    facts = device(tmp_path, INTEL)
    for wanted in ("reference", "onnxruntime", "onnxruntime-cpu"):
        choice = select(facts, "head", wanted=wanted)
        assert wanted in (choice.candidate.name, choice.candidate.runtime)
        assert choice.reason == "it was asked for"
    others = [choice for choice in judge(facts, "head", wanted="reference") if choice.usable and not choice.chosen]
    assert {choice.reason for choice in others} == {"reference was asked for"}


def test_what_is_asked_for_and_cannot_be_used_is_an_error(tmp_path):
    facts = device(tmp_path, "`CPU_MODEL=Intel Xeon` `PACKAGES=onnxruntime=1.20.0`")
    with pytest.raises(RuntimeUnavailableError, match="openvino is not installed") as caught:
        select(facts, "head", wanted="openvino")
    assert "pip install 'flashhead-edge[openvino]'" in str(caught.value)
    with pytest.raises(RuntimeUnavailableError, match="there is no NVIDIA GPU"):
        select(facts, "head", wanted="tensorrt")


def test_a_graph_that_the_bundle_lacks_speaks_against_a_runtime(tmp_path):
    facts = device(tmp_path, "`GPU_NAME=NVIDIA L4` `PACKAGES=tensorrt=10.3.0,polygraphy=0.53.6,onnxruntime=1.20.0`")
    assert select(facts, "head").candidate.name == "tensorrt"
    choices = judge(facts, "head", graphs=frozenset({"head"}))
    assert "--target tensorrt" in choices[1].reason
    assert next(choice for choice in choices if choice.chosen).candidate.name == "onnxruntime-cpu"


def test_a_provider_that_does_not_load_is_given_with_its_reason(tmp_path):
    from dataclasses import replace

    from flashhead_edge.platforms.providers import ProviderFacts

    facts = device(tmp_path, "`GPU_NAME=NVIDIA L4` `PACKAGES=onnxruntime-gpu=1.23.0`")
    facts = replace(facts, providers=(ProviderFacts("CUDAExecutionProvider", False, "no libcudnn.so.9"),))
    reasons = {choice.candidate.name: choice.reason for choice in judge(facts, "text")}
    assert reasons["onnxruntime-cuda"] == "CUDAExecutionProvider does not load: no libcudnn.so.9"


def test_unknown_names_are_refused(tmp_path):
    facts = device(tmp_path, INTEL)
    with pytest.raises(OptionError, match="openvino"):
        select(facts, "head", wanted="openvin")
    with pytest.raises(OptionError, match="purpose"):
        select(facts, "talk")


def test_candidates_are_runtimes_and_can_do_something():
    # TensorRT and vLLM have their own ways in.
    assert {item.runtime for item in CANDIDATES} - {"vllm", "tensorrt"} <= set(RUNTIMES)
    assert len({item.name for item in CANDIDATES}) == len(CANDIDATES)
    assert all(set(item.purposes) <= set(PURPOSES) and item.purposes for item in CANDIDATES)


def test_choosing_imports_nothing_heavy():
    code = (
        "import sys; from flashhead_edge.platforms.detection import detect;"
        "from flashhead_edge.runtimes.selector import judge;"
        "judge(detect(try_providers=False), 'text');"
        "heavy = {'onnxruntime', 'openvino', 'torch', 'tensorrt', 'vllm', 'onnx', 'transformers'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
