"""The operators as torch sees them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from flashhead_edge.errors import OptionError
from flashhead_edge.kernels import operators
from flashhead_edge.kernels.head_tensors import CentroidTensors, HeadTensors
from flashhead_edge.quantize import quantize_rows
from tests.kernels.tiny_kernels import check_candidates, check_full_width, stage1, states_of, tiny_head


def test_operators_are_what_torch_expects_of_one():
    """Schemas, shapes for tracing, and no input that is changed or given back unannounced."""
    tiny = tiny_head(149, 40, 6, 4, always=(0, 3), bias=True)
    states = states_of(3, 40)
    products, probes = stage1(tiny, states, 4)
    quantized = quantize_rows(tiny.index.centroids, 8)
    codes, scales = torch.from_numpy(quantized.codes), torch.from_numpy(quantized.float_scales)
    ops, arguments, columns = torch.ops.flashhead_edge, tiny.tensors.arguments(), tiny.columns
    torch.library.opcheck(ops.score_clusters, (states, codes, scales, products[0].clone(), 8))
    torch.library.opcheck(ops.score_candidates, (states, probes, *arguments))
    chosen = (torch.from_numpy(tiny.index.selection_offset), columns.estimate_offset, tiny.tensors.activation, 4)
    torch.library.opcheck(ops.open_clusters, (products, *chosen))
    estimates = ops.open_clusters(products, *chosen)
    torch.library.opcheck(ops.score_opened, (states, estimates, *arguments, 4))
    scored = (*ops.score_opened(states, estimates, *arguments, 4), estimates)
    torch.library.opcheck(ops.spread_logits, (*scored, columns.slot_of_token, tiny.tensors.activation, 6))


def test_functions_over_a_head():
    tiny = tiny_head(149, 40, 6, 4, always=(0, 3))
    states = states_of(3, 40)
    products, probes = stage1(tiny, states, 4)
    check_candidates(tiny, states, operators.score_candidates(tiny.tensors, states, probes))
    offset = torch.from_numpy(tiny.index.selection_offset)
    logits = operators.full_width_logits(tiny.tensors, tiny.columns, states, products, offset, 4)
    check_full_width(tiny, states, products, logits)


def test_tensors_that_do_not_fit_are_refused():
    tiny = tiny_head(60, 16, 4, 2).tensors
    with pytest.raises(OptionError, match="rows"):
        HeadTensors(tiny.rows[:, :, ::2], tiny.token_order, tiny.num_clusters, tiny.activation)
    with pytest.raises(OptionError, match="Scales"):
        HeadTensors(tiny.rows.to(torch.int8), tiny.token_order, tiny.num_clusters, tiny.activation)
    with pytest.raises(OptionError, match="clusters"):
        HeadTensors(tiny.rows, tiny.token_order, 99, tiny.activation)
    with pytest.raises(OptionError, match="bits"):
        CentroidTensors(torch.zeros(1, 1, 8, dtype=torch.uint8), torch.zeros(1, 1), torch.zeros(1), 2)


def test_the_package_imports_neither_torch_nor_triton():
    code = "import sys, flashhead_edge.kernels, flashhead_edge.runtimes.torch; sys.exit('torch' in sys.modules or 'triton' in sys.modules)"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
