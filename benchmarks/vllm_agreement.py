"""How often the plugin of vLLM picks dense vLLM's token, and how far its next-token distribution is from dense's.

Runs in the environment of ``make test-vllm``. vLLM writes texts from the prompts of ``texts/prompts.txt``, greedy and
drawn at temperature 1, with its dense head; at each decode position the plugin's head scores the same hidden state, at
the default number of probes. Beside that, whole greedy texts of both heads, and the share of drafts that each accepts,
drafting for itself. Writes ``results/vllm-agreement.json`` after each model, or another file where it runs on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import MODELS, RESULTS
from benchmarks.vllm_models import published_folder, standard_folder
from benchmarks.vllm_speed import GPU_MEMORY, gpu_name
from flashhead_edge.platforms.host import host_facts

NEW_TOKENS = 22
BATCH = 8
#: Of each of the first eight texts, with all clusters opened: what is left is rounding.
ALL_OPENED_TOKENS = 8
DRAFTS = 3
#: Models that vLLM takes as draft models: those with layers of different windows it refuses.
DRAFTING = ("smollm2",)
DRAFTED, ACCEPTED = "vllm:spec_decode_num_draft_tokens", "vllm:spec_decode_num_accepted_tokens"
SAMPLING = {"greedy": {"temperature": 0.0}, "drawn": {"temperature": 1.0, "seed": 0}}


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--output", type=Path, default=RESULTS / "vllm-agreement.json")
    arguments = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    import torch
    import vllm

    path = arguments.output
    earlier = json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else []
    models = {model["model"]: model for model in earlier}
    for name in arguments.models:
        models[name] = measure(name)
        models[name]["versions"] = {"vllm": vllm.__version__, "torch": torch.__version__}
        report = {
            "machine": host_facts().as_dict() | ({"gpu": gpu_name()} if torch.cuda.is_available() else {}),
            "dtype": "bfloat16",
            "batch": BATCH,
            "new_tokens": NEW_TOKENS,
            "models": [models[known] for known in MODELS if known in models],
        }
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(models[name], indent=1))


def measure(name: str) -> dict[str, object]:
    """All figures of one model."""
    prompts = read_prompts(standard_folder(name))
    engine = start(published_folder(name))
    method = two_stage_method(engine)
    own = texts(engine, prompts, SAMPLING["greedy"])
    comparison = Comparison(method)
    report: dict[str, object] = {
        "model": name,
        "num_clusters": method.settings.index.num_clusters,
        "num_probes": method.settings.num_probes,
    }
    dense_texts = {}
    for kind, sampling in SAMPLING.items():
        comparison.clear()
        dense_texts[kind] = texts(engine, prompts, sampling)
        report[kind] = comparison.figures()
    stop(engine)
    engine = start(published_folder(name), num_probes=report["num_clusters"])
    comparison = Comparison(two_stage_method(engine), rounding=True)
    texts(engine, prompts[:BATCH], SAMPLING["greedy"] | {"max_tokens": ALL_OPENED_TOKENS})
    report["all_opened"] = comparison.figures() | comparison.rounding()
    stop(engine)
    engine = start(standard_folder(name))
    standard = texts(engine, prompts, SAMPLING["greedy"])
    stop(engine)
    if standard != dense_texts["greedy"]:
        raise SystemExit("the dense head in the plugin wrote other texts than vLLM without it")
    report["accepted_drafts"] = accepted_drafts(name, prompts) if name in DRAFTING else None
    same = [np.equal(ours, theirs) for ours, theirs in zip(own, standard, strict=True)]
    report["greedy_texts"] = {
        "texts": len(same),
        "equal": sum(bool(tokens.all()) for tokens in same),
        "tokens_before_the_first_difference": sum(int(np.logical_and.accumulate(tokens).sum()) for tokens in same),
    }
    return report


def read_prompts(folder: Path) -> list[list[int]]:
    """Tokens of the prompts; not by transformers, whose versions do not all read this tokenizer alike."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lines = (Path(__file__).parent / "texts" / "prompts.txt").read_text(encoding="utf-8").splitlines()
    return [tokenizer.encode(line).ids for line in lines]


def accepted_drafts(name: str, prompts: list[list[int]]) -> dict[str, float]:
    """Share of drafts accepted, greedily, by the standard model and by the published one; each drafts for itself."""
    shares = {}
    for head, folder in (("dense", standard_folder(name)), ("two_stage", published_folder(name))):
        draft = {"method": "draft_model", "model": str(folder), "num_speculative_tokens": DRAFTS}
        engine = start(folder, speculative_config=draft)
        texts(engine, prompts[:BATCH], SAMPLING["greedy"] | {"max_tokens": NEW_TOKENS})
        counted = {metric.name: metric.value for metric in engine.get_metrics() if metric.name in (DRAFTED, ACCEPTED)}
        shares[head] = counted[ACCEPTED] / counted[DRAFTED]
        stop(engine)
    return shares


class Comparison:
    """Stands in for the head's ``apply``: vLLM goes on with dense logits, ours are compared with them.

    Args:
        method: The plugin's method of the head.
        rounding: Also compare logits one by one, which is slow.
    """

    def __init__(self, method: Any, *, rounding: bool = False) -> None:
        self._compares_rounding = rounding
        self._two_stage, self._dense = method.apply, method.dense.apply
        self.clear()
        method.apply = self.apply

    def clear(self) -> None:
        """Forget what was compared."""
        self.agrees: list[bool] = []
        self.variations: list[float] = []
        self.differing: list[float] = []
        self.ulps: list[float] = []

    def apply(self, layer: Any, x: Any, bias: Any = None) -> Any:
        """Dense logits, [N, W]."""
        ours, dense = self._two_stage(layer, x, bias=bias), self._dense(layer, x, bias=bias)
        vocab = layer.org_vocab_size
        probabilities = [logits[:, :vocab].float().softmax(dim=1) for logits in (ours, dense)]
        self.variations += ((probabilities[0] - probabilities[1]).abs().sum(dim=1) / 2).tolist()
        if self._compares_rounding:
            self.differing += (ours != dense)[:, :vocab].float().mean(dim=1).tolist()
            self.ulps += units_in_the_last_place(ours[:, :vocab], dense[:, :vocab]).amax(dim=1).tolist()
        self.agrees += (ours[:, :vocab].argmax(dim=1) == dense[:, :vocab].argmax(dim=1)).tolist()
        return dense

    def figures(self) -> dict[str, float]:
        """Agreement, and total variation at temperature 1."""
        return {
            "positions": len(self.agrees),
            "agreement": float(np.mean(self.agrees)),
            "total_variation_mean": float(np.mean(self.variations)),
            "total_variation_p50": float(np.quantile(self.variations, 0.5)),
            "total_variation_p99": float(np.quantile(self.variations, 0.99)),
        }

    def rounding(self) -> dict[str, float]:
        """Share of the logits that differ at all, and the greatest difference in units in the last place."""
        return {
            "logits_that_differ": float(np.mean(self.differing)),
            "greatest_difference_ulps": float(np.max(self.ulps)),
        }


def units_in_the_last_place(ours: Any, dense: Any) -> Any:
    """Differences of bfloat16 numbers, in units of the larger one's last place, [N, V]."""
    import torch

    larger = torch.maximum(ours.abs(), dense.abs()).float().clamp(min=torch.finfo(torch.bfloat16).tiny)
    unit = torch.exp2(torch.floor(torch.log2(larger)) - 7)
    return (ours.float() - dense.float()).abs() / unit


def start(folder: Path, num_probes: int | None = None, **options: Any) -> Any:
    """An engine of vLLM in this process."""
    import torch
    from vllm import LLM

    return LLM(
        str(folder),
        hf_overrides={"flash_head_max_rows": 64} | ({"n_probes": num_probes} if num_probes else {}),
        disable_log_stats=False,
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=BATCH,
        enable_prefix_caching=False,
        **({"gpu_memory_utilization": GPU_MEMORY} if torch.cuda.is_available() else {}),
        **options,
    )


def stop(engine: Any) -> None:
    """End an engine and give its memory back."""
    from vllm.distributed import cleanup_dist_env_and_memory

    engine.llm_engine.engine_core.shutdown()
    del engine
    gc.collect()
    cleanup_dist_env_and_memory()


def texts(engine: Any, prompts: list[list[int]], sampling: dict[str, Any]) -> list[list[int]]:
    """New tokens of each prompt; every text is as long, so that the batches of two engines are the same."""
    from vllm import SamplingParams

    settings = SamplingParams(**{"max_tokens": NEW_TOKENS, "ignore_eos": True} | sampling)
    requests = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], settings, use_tqdm=False)
    return [list(request.outputs[0].token_ids) for request in requests]


def two_stage_method(engine: Any) -> Any:
    """The plugin's method of the head in an engine of this process."""
    from flashhead_edge.runtimes.vllm.head_access import two_stage_methods

    return engine.apply_model(two_stage_methods)[0][0]


if __name__ == "__main__":
    sys.exit(main())
