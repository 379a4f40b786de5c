"""Requests that every engine gets, and what must hold between two engines' outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

PROMPTS = [
    "The quick brown fox",
    "def add(first, second):",
    "Once upon a time there was",
    "The capital of France is",
    "To make a good cup of tea, first",
    "In the year 1969 the first people",
    "Der schnelle braune Fuchs",
    "A list of colours: red, green,",
]
GREEDY = {"temperature": 0.0, "max_tokens": 12}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": ["red", "blue"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def batches(sizes: Iterable[int] = range(1, 9)) -> dict[str, Any]:
    """Greedy texts, so many at a time."""
    return {f"batch {size}": {"prompts": PROMPTS[:size], "sampling": GREEDY} for size in sizes}


def unconstrained(allowed: list[int]) -> dict[str, Any]:
    """Requests whose every option acts on the logits as they are; ``allowed`` are some ids of the vocabulary."""
    return {
        "sampled": {"prompts": PROMPTS[:4], "sampling": {"temperature": 1.0, "seed": 7, "max_tokens": 12}},
        "top-p": {
            "prompts": PROMPTS[:3],
            "sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.02, "seed": 3, "max_tokens": 12},
        },
        "logprobs": {"prompts": PROMPTS[:3], "sampling": GREEDY | {"logprobs": 5, "prompt_logprobs": 3}},
        "penalties": {
            "prompts": PROMPTS[:2],
            "sampling": GREEDY | {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3},
        },
        "min tokens": {"prompts": PROMPTS[:2], "sampling": GREEDY | {"min_tokens": 10, "stop_token_ids": allowed[:3]}},
        "bad words": {"prompts": PROMPTS[:2], "sampling": GREEDY | {"bad_words": [" the", " a", "e"]}},
        "two completions": {
            "prompts": PROMPTS[:1],
            "sampling": {"n": 2, "temperature": 1.0, "seed": 5, "max_tokens": 8},
        },
    }


def naming(allowed: list[int]) -> dict[str, Any]:
    """Requests that name tokens; ``allowed`` are some ids of the vocabulary."""
    bias = {str(token): 4.0 for token in allowed[::2]}
    return {
        "logit bias": {"prompts": PROMPTS[:2], "sampling": GREEDY | {"logit_bias": bias, "logprobs": 2}},
        "allowed ids": {"prompts": PROMPTS[:2], "sampling": GREEDY | {"allowed_token_ids": allowed}},
        "regex": {"prompts": PROMPTS[:3], "sampling": GREEDY | {"structured": {"regex": "[0-9]{3}-[a-f]{2}"}}},
        "regex sampled": {
            "prompts": PROMPTS[:2],
            "sampling": {"temperature": 1.0, "seed": 1, "max_tokens": 12, "structured": {"regex": "[a-z]{4}"}},
        },
        "choice": {
            "prompts": PROMPTS[:2],
            "sampling": GREEDY | {"structured": {"choice": ["yes", "no", "perhaps"]}},
        },
        "json": {"prompts": PROMPTS[:1], "sampling": GREEDY | {"max_tokens": 40, "structured": {"json": SCHEMA}}},
        "favoured again": {"prompts": PROMPTS[:1], "sampling": GREEDY | {"presence_penalty": -1.5}},
        # Nothing drawn: when a grammar in the batch is compiled late, vLLM 0.28 draws others, with the dense head too.
        "mixed": {
            "prompts": PROMPTS[:4],
            "sampling": [
                GREEDY,
                GREEDY | {"structured": {"regex": "[0-9]{4}"}},
                GREEDY | {"frequency_penalty": 0.5},
                GREEDY | {"allowed_token_ids": allowed},
            ],
        },
    }


def shortened(cases: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The same for large models in bfloat16: shorter texts, and grammars one request at a time.

    Texts that end by themselves stay as long. Requests with a grammar wait until it is compiled, so which of several
    meet in a step is chance, and in bfloat16 a step's size changes logits enough for near ties to fall otherwise, in
    dense vLLM too.
    """

    def short(sampling: Any) -> Any:
        if isinstance(sampling, list):
            return [short(each) for each in sampling]
        ends = "structured" in sampling or "min_tokens" in sampling
        return sampling if ends else sampling | {"max_tokens": tokens}

    def alone(case: dict[str, Any]) -> dict[str, Any]:
        if isinstance(case["sampling"], dict) and "structured" in case["sampling"]:
            return case | {"prompts": case["prompts"][:1]}
        return case

    return {name: alone(case) | {"sampling": short(case["sampling"])} for name, case in cases.items()}
