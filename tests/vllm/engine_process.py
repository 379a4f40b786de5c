"""Run as a program: engines of vLLM one after the other in this process, each on the same requests.

Reads a JSON job and writes a JSON report, so that a test compares engines without having them in its own process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    job, report = Path(sys.argv[1]), Path(sys.argv[2])
    results = {}
    for engine in json.loads(job.read_text()):
        os.environ.update(engine.get("env", {}))
        results[engine["name"]] = run_engine(engine)
        for name in engine.get("env", {}):
            del os.environ[name]
        report.write_text(json.dumps(results))


def run_engine(engine: dict) -> dict:
    """Outputs by case, or the error that stopped the engine; what the plugin counted meanwhile."""
    from flashhead_edge.runtimes.vllm.dense_path import DENSE_PATH

    DENSE_PATH.__init__()
    try:
        llm = start(engine)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    try:
        loaded = counts(DENSE_PATH)
        outputs = {name: run_case(llm, case) for name, case in engine["cases"].items()}
        facts = {"outputs": outputs, "loaded": loaded, "counts": counts(DENSE_PATH)}
        if engine.get("speculates"):
            facts["speculation"] = speculation(llm)
        return facts
    finally:
        stop(llm)


def start(engine: dict):
    import vllm

    return vllm.LLM(engine["model"], **engine["options"])


def stop(llm) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()


def counts(dense_path) -> dict:
    return {"two_stage": dense_path.two_stage_rows, "dense": dict(dense_path.rows)}


def run_case(llm, case: dict) -> list:
    """One list of requests, all in the engine at once."""
    prompts = [{"prompt_token_ids": p} if isinstance(p, list) else {"prompt": p} for p in case["prompts"]]
    settings = case["sampling"]
    settings = settings if isinstance(settings, list) else [settings] * len(prompts)
    lora = None
    if "lora" in case:
        from vllm.lora.request import LoRARequest

        lora = LoRARequest(Path(case["lora"]).name, 1 + abs(hash(case["lora"])) % 1000, case["lora"])
    requests = llm.generate(prompts, [sampling_of(s) for s in settings], lora_request=lora, use_tqdm=False)
    return [[plain(completion, request) for completion in request.outputs] for request in requests]


def sampling_of(settings: dict):
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    settings = dict(settings)
    if "structured" in settings:
        settings["structured_outputs"] = StructuredOutputsParams(**settings.pop("structured"))
    if "logit_bias" in settings:
        settings["logit_bias"] = {int(token): bias for token, bias in settings["logit_bias"].items()}
    return SamplingParams(**settings)


def plain(completion, request) -> dict:
    return {
        "tokens": list(completion.token_ids),
        "text": completion.text,
        "logprobs": logprobs(completion.logprobs),
        "prompt_logprobs": logprobs(request.prompt_logprobs),
    }


def logprobs(positions) -> list | None:
    if positions is None:
        return None
    return [{} if p is None else {token: value.logprob for token, value in p.items()} for p in positions]


def speculation(llm) -> dict:
    """Drafts and how many were accepted, from vLLM's own counters."""
    wanted = {"vllm:spec_decode_num_draft_tokens": "drafted", "vllm:spec_decode_num_accepted_tokens": "accepted"}
    return {wanted[metric.name]: metric.value for metric in llm.get_metrics() if metric.name in wanted}


if __name__ == "__main__":
    main()
