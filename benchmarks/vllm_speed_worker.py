"""One engine of vLLM in a process of its own, which waits for its turns; started by ``vllm_speed.py``.

Reads an object of JSON for each turn from stdin and answers with one on stdout.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Load the engine and take turns until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # vLLM writes to stdout
    job = json.loads(sys.argv[1])

    import vllm
    from vllm import LLM, SamplingParams

    now = time.process_time if job["cpu_time"] else time.perf_counter
    engine = LLM(job["model"], **job["options"])
    clock: dict[str, float] = {}
    if job["watch"]:  # in this process
        (clock,) = engine.collective_rpc(functools.partial(_watch, now=now))

    def generate(prompts: list[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
        sampling = SamplingParams(**job["sampling"], max_tokens=tokens, min_tokens=0, ignore_eos=True)
        began = now()
        outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
        return now() - began, [list(output.outputs[0].token_ids) for output in outputs]

    def answer(facts: dict[str, Any]) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    answer({"vllm": vllm.__version__})
    for line in sys.stdin:
        turn = json.loads(line)
        prompts = turn["prompts"]
        prefill, _ = generate(prompts, 1)  # and the prefixes are in the cache
        before = dict(clock)
        seconds, texts = generate(prompts, 1 + turn["tokens"])
        spent = {f"{name}_seconds": clock[name] - before[name] for name in clock}
        (rows,) = engine.collective_rpc(_rows)
        answer({"seconds": seconds - prefill, **spent, "texts": texts, **rows})


def _rows(_: Any) -> dict[str, Any]:
    """Rows that a worker's heads scored."""
    from flashhead_edge.runtimes.vllm.dense_path import DENSE_PATH

    return {"two_stage_rows": DENSE_PATH.two_stage_rows, "dense_rows": dict(DENSE_PATH.rows)}


def _watch(worker: Any, now: Callable[[], float]) -> dict[str, float]:
    """Have a worker's head and sampler add up their seconds."""
    from flashhead_edge.runtimes.vllm.head_access import head_of

    clock = {"head": 0.0, "sampler": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            began = now()
            try:
                return function(*arguments, **options)
            finally:
                clock[name] += now() - began

        return run

    runner = worker.model_runner
    method = head_of(runner.get_model()).quant_method
    method.apply = timed("head", method.apply)
    runner.sampler.forward = timed("sampler", runner.sampler.forward)
    return clock


if __name__ == "__main__":
    main()
