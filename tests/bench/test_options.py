from __future__ import annotations

from pathlib import Path

import pytest

from flashhead_edge.bench.options import BenchOptions, Competitor, Test
from flashhead_edge.errors import OptionError


def test_every_combination_is_a_test():
    options = BenchOptions(prompt_tokens=(64,), new_tokens=(8, 16), batches=(1, 2))
    assert [(test.name, test.batch) for test in options.tests] == [
        ("pp64", 1),
        ("pp64", 2),
        ("tg8", 1),
        ("tg16", 1),
        ("tg8", 2),
        ("tg16", 2),
    ]
    assert Test("tg", 128).name == "tg128"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_tokens": (), "new_tokens": ()}, "nothing to measure"),
        ({"heads": ()}, "nothing to measure"),
        ({"batches": (0,)}, "Batches are out of range"),
        ({"threads": (-1,)}, "Threads are out of range"),
        ({"rounds": 0}, "rounds is out of range"),
        ({"heads": ("dense-int9",)}, "dense-int8"),
        ({"against": (Competitor("llama.cpp", Path("/")),)}, "--gguf"),
        ({"device": "gpu"}, "There is no device 'gpu'"),
        ({"device": "cuda", "heads": ("two-stage-portable",)}, "on the CPU only"),
        ({"device": "cuda", "against": (Competitor("onnxruntime-genai", Path("/")),)}, "on the CPU only"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        BenchOptions(**changes)
