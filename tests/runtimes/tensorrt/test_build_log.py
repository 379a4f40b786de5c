from __future__ import annotations

import pytest

from flashhead_edge.runtimes.tensorrt.build_log import BuildLog

#: Lines of TensorRT for RTX 1.7.1, shortened.
RTX = """[X] Parsing node: /head/batch/Shape [Shape]
[X] Parsing node: /head/centroids/MatMul [ReduceSum]
[X] Parsing node: /head/select/TopK [TopK]
[X] Layer: {ForeignNode[/head/logits/Unsqueeze.../head/token_ids/Identity]} Scratch Memory: 13312 bytes
[V] Max Scratch Memory: 13312 bytes
[X] Layers:
    Name: __mye1393_0_myl0_0, LayerType: shape_call, Inputs: [], Outputs: [], StreamId: 0, Metadata:
    Name: __myl_Topk_myl0_2, LayerType: kgen, Inputs: [ { Name: __myln_k_arg, Dimensions: [-1,10] } ], StreamId: 0
    Name: __myl_FcCast_myl0_2, LayerType: runtime_fusion, Inputs: [ { Name: x, Dimensions: [-1,57] } ], StreamId: 0
    I/O Tensors:
     Name: hidden_states, IOMode: Input, DataType: Float
"""


def test_what_the_log_says() -> None:
    log = BuildLog.of(RTX)
    assert (log.scratch_bytes, log.graph_nodes, log.engine_layers, log.layers_fused) == (13312, 3, 2, 1)


def test_an_engine_that_was_opened_counts_its_layers_itself() -> None:
    assert BuildLog.of(RTX + "The engine opens here; its layers: 7\n").engine_layers == 7


def test_the_greatest_scratch_memory_counts() -> None:
    text = "[V] Total Scratch Memory: 512\n[V] Max Scratch Memory: 1024 bytes\n[V] Max Scratch Memory: 64 bytes\n"
    assert BuildLog.of(text).scratch_bytes == 1024


@pytest.mark.parametrize("text", ["", "[I] Finished engine building in 0.2 seconds\n"])
def test_what_is_not_said_is_unknown(text: str) -> None:
    log = BuildLog.of(text)
    assert (log.scratch_bytes, log.graph_nodes, log.engine_layers, log.layers_fused) == (None, None, None, None)


def test_errors_before_other_lines() -> None:
    log = BuildLog.of("[I] start\n[E] first\n[X] between\n[!] last\n\n")
    assert log.errors() == ["[E] first", "[!] last"]
    assert BuildLog.of("one\ntwo\n").errors(1) == ["two"]
    assert BuildLog.of("").errors() == []
