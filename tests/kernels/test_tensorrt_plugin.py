"""What can be checked of the plugin without TensorRT: the order of its kernel's parameters, and the launch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import flashhead_edge.kernels
from flashhead_edge.errors import BundleError
from flashhead_edge.kernels import tensorrt_plugin
from flashhead_edge.kernels.tensorrt_plugin import launch_sizes


def functions(path: Path) -> dict[str, list[str]]:
    """Parameters of every function in a file."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name: [item.arg for item in node.args.args] for node in tree if isinstance(node, ast.FunctionDef)}


def test_the_kernel_takes_inputs_integers_and_outputs_in_that_order():
    kernel = functions(Path(flashhead_edge.kernels.__file__).with_name("triton_stage2.py"))["score_candidates"]
    plugin = functions(Path(tensorrt_plugin.__file__))
    assert plugin["compiled"] == [*plugin["describe"], "outputs", "tactic"]
    inputs = [name for name in plugin["describe"] if name not in ("num_clusters", "has_bias")]
    assert kernel[:7] == [f"{name}_ptr" for name in inputs]
    integers = ["hidden_size", "cluster_size", "num_probes", "num_clusters", "num_opened", "has_bias"]
    assert kernel[7:13] == integers
    assert kernel[13:16] == ["candidate_ids_ptr", "candidate_logits_ptr", "best_keys_ptr"]


@pytest.mark.triton
def test_the_launch_is_that_of_the_torch_operators(interpreted_launches):
    for places, size, probes, clusters in ((30, 6, 4, 27), (9, 1, 9, 9), (70, 33, 5, 64)):
        integers, parts = launch_sizes((2, probes), (places, size, 48), clusters, 1)
        order = torch.zeros(places, size, dtype=torch.int32)
        tensors = (torch.zeros(2, 48), torch.zeros(2, probes, dtype=torch.int32), torch.zeros(places, size, 48), order)
        bias = torch.zeros(places, size)
        assert integers == list(interpreted_launches._inputs(*tensors, torch.zeros(3), None, bias, clusters)[7:])
        assert parts == interpreted_launches._sizes(tensors[1], order, clusters)[2]


def test_a_folder_without_kernels_is_refused(tmp_path):
    with pytest.raises(BundleError, match="compiled kernels"):
        tensorrt_plugin._kernels(tmp_path, "sm_87")
    (tmp_path / "kernels.json").write_text('{"kernels": [{"build": "a", "target": "sm_90"}]}')
    with pytest.raises(BundleError, match="sm_87"):
        tensorrt_plugin._kernels(tmp_path, "sm_87")
