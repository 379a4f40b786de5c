"""Runs onnxruntime-genai's model builder: the main of the process that :mod:`flashhead_edge.export.body` starts.

The builder puts top-level modules such as ``builders`` and ``quantization`` on the import path, prints, and holds all
weights in memory, so it gets a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

#: What makes the builder write a decoder between embedding and head, with a cache that a plain session can feed.
BUILDER_OPTIONS = (
    "exclude_embeds=true",
    "exclude_lm_head=true",
    "shared_embeddings=false",
    "windowed_kv_cache=false",
    "hf_token=false",
)
#: Like llama.cpp's Q4_K_M: blocks with zero points, the most sensitive matrices in int8. Against plain int4, a fifth
#: more bytes and a tenth more time a step halve the divergence from the float model (Gemma 3 270M, SmolLM2 135M).
INT4_OPTIONS = ("algo_config=k_quant", "matmul_mixed_precision=mixed_layers:int8")
EXECUTION_PROVIDER = "cpu"


def main(arguments: list[str] | None = None) -> None:
    """Build ``model.onnx`` and ``model.onnx.data``.

    Args:
        arguments: Command line, ``sys.argv[1:]`` if None.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("precision", choices=["int4", "int8", "fp32"])
    parser.add_argument("--max-positions", type=int, help="cap of the context length, in tokens")
    options = parser.parse_args(arguments)
    logging.disable(logging.INFO)  # the quantizer logs two lines for every node

    builder = _import_builder()
    where = (None, str(options.model_folder), str(options.output), options.precision, EXECUTION_PROVIDER)
    cache = str(options.output / "cache")
    extra = [*BUILDER_OPTIONS, *(INT4_OPTIONS if options.precision == "int4" else ())]
    parsed = builder.parse_extra_options(*where, cache, extra)
    config = parsed["hf_details"]["hf_config"]
    cap_positions(config, options.max_positions)
    flatten_rope_parameters(config)
    builder.create_model(*where, cache, **parsed)


def cap_positions(config: Any, max_positions: int | None) -> None:
    """Shorten the context of a model, whose rotary tables cost ``positions * head_dim * 8`` bytes a layer type.

    Args:
        config: The model's ``PretrainedConfig``, changed in place.
        max_positions: The longest context in tokens, or None for the model's own.
    """
    longest = config.max_position_embeddings
    if max_positions is None or longest <= max_positions:
        return
    config.max_position_embeddings = max_positions
    if getattr(config, "original_max_position_embeddings", None) == longest:
        config.original_max_position_embeddings = max_positions  # Phi-3: unequal would mean LongRoPE


def flatten_rope_parameters(config: Any) -> None:
    """Restore the RoPE fields of Gemma 3 that the builder reads and Transformers 5 moved.

    Transformers 5 keeps one dictionary per layer type; builder 0.18 wants the global one flat and the local base apart.

    Args:
        config: The model's ``PretrainedConfig``, changed in place.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    if "full_attention" not in parameters or "sliding_attention" not in parameters:
        return
    config.rope_local_base_freq = parameters["sliding_attention"]["rope_theta"]
    config.rope_theta = parameters["full_attention"]["rope_theta"]
    config.rope_parameters = dict(parameters["full_attention"])


def _import_builder() -> Any:
    """The builder's module, found beside the package because its files import each other as top-level names."""
    spec = importlib.util.find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'onnxruntime_genai'", name="onnxruntime_genai")
    sys.path.insert(0, str(Path(spec.origin).parent / "models"))
    return importlib.import_module("builder")


if __name__ == "__main__":
    main()
