"""Which decoders the model builder exports right: compared with Transformers on small models, prompt and cached steps.

The builder itself accepts more and some of it comes out wrong without a word (OLMo's norms, linear RoPE, a sliding
window that the config does not spell out by layer), so everything that was not compared is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flashhead_edge.errors import BodyExportError

BODY_ARCHITECTURES = (
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GemmaForCausalLM",
    "GraniteForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
#: RoPE variants that come out right, of all architectures and of some.
ROPE_TYPES = ("default",)
ROPE_TYPES_OF = {"LlamaForCausalLM": ("llama3",)}
#: Architectures whose sliding window the builder drops.
WITHOUT_WINDOW = ("MistralForCausalLM", "Phi3ForCausalLM")

NO_BODY_HINT = "export without a body (--no-body) and run the decoder with its own runtime"


def read_supported_config(model_folder: Path, max_positions: int | None) -> dict[str, Any]:
    """Read ``config.json``, refused unless the model's body is known to come out right.

    Args:
        model_folder: Hugging Face folder.
        max_positions: Cap of the context in tokens, or None.

    Raises:
        BodyExportError: Unreadable, or an architecture or variant that is not supported.
    """
    try:
        config: dict[str, Any] = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BodyExportError(f"config.json of {model_folder.name!r} cannot be read.", found=error) from error
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in BODY_ARCHITECTURES:
        raise BodyExportError(
            "The decoder body of this architecture cannot be exported.",
            found=architecture or "none named in config.json",
            expected="one of " + ", ".join(BODY_ARCHITECTURES),
            hint=NO_BODY_HINT,
        )
    expected = ROPE_TYPES + ROPE_TYPES_OF.get(architecture, ())
    unknown = sorted(set(_rope_types(config)) - set(expected))
    if unknown:
        raise BodyExportError(
            f"{architecture} with this kind of RoPE cannot be exported.",
            found=", ".join(unknown),
            expected=" or ".join(expected),
            hint=NO_BODY_HINT,
        )
    window = config.get("sliding_window")
    positions = min(int(config["max_position_embeddings"]), max_positions or sys.maxsize)
    if architecture in WITHOUT_WINDOW and window is not None and window < positions:
        raise BodyExportError(
            f"The sliding window of {architecture} cannot be exported.",
            found=f"a window of {window} tokens in a context of {positions}",
            expected="a context that fits into the window",
            hint=f"cap the context at {window} tokens, or {NO_BODY_HINT}",
        )
    return config


def _rope_types(config: dict[str, Any]) -> Iterator[str]:
    """Every RoPE variant that a config names, in the form of Transformers 4 or 5, once or by layer type."""
    for key in ("rope_parameters", "rope_scaling"):
        parameters = config.get(key) or {}
        nested = [value for value in parameters.values() if isinstance(value, dict)]
        for one in nested or [parameters]:
            yield str(one.get("rope_type", one.get("type", "default")))
