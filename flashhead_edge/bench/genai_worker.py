"""Measures a model folder of onnxruntime-genai: ``python -m flashhead_edge.bench.genai_worker FOLDER THREADS TEST...``.

Tests are named as llama-bench names them. Writes JSON to standard output.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from flashhead_edge.bench.turns import PROMPT_LENGTH, SETTLING


def main(folder: str, threads: str, *tests: str) -> None:
    """Measure every test once, after a short one that does not count.

    Args:
        folder: The model's folder, with ``genai_config.json``.
        threads: Threads of the operators.
        tests: Such as "pp512" and "tg128".
    """
    import onnxruntime_genai as genai

    config = genai.Config(folder)
    session = {"intra_op_num_threads": int(threads)}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = genai.Model(config)
    _measure(genai, model, "tg4")
    speeds = {test: _measure(genai, model, test) for test in tests}
    json.dump({"tokens_per_second": speeds, "version": genai.__version__}, sys.stdout)


def _measure(genai: object, model: object, test: str) -> float:
    """Tokens per second."""
    kind, count = test[:2], int(test[2:])
    settling = min(SETTLING, count // 2) if kind == "tg" else 0
    length = count if kind == "pp" else PROMPT_LENGTH
    positions = length + count + settling + 1
    parameters = genai.GeneratorParams(model)  # type: ignore[attr-defined]
    parameters.set_search_options(do_sample=False, min_length=positions, max_length=positions)
    generator = genai.Generator(model, parameters)  # type: ignore[attr-defined]
    prompt = np.arange(length, dtype=np.int32) % 97 + 3
    start = time.perf_counter()
    generator.append_tokens(prompt)
    if kind == "pp":
        return count / (time.perf_counter() - start)
    for step in range(count + settling):
        if step == settling:
            start = time.perf_counter()
        generator.generate_next_token()
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
