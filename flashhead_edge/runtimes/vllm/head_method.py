"""The one place where vLLM meets the two-stage head: the method that a head's module calls for its logits.

Every path of vLLM from a hidden state to logits ends in ``lm_head.quant_method.apply`` (0.14 to 0.33): sampling, prompt
log-probabilities, drafts and their checks. Nothing of vLLM is patched; the module of this model gets another method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from flashhead_edge.errors import BundleError
from flashhead_edge.runtimes.vllm.dense_path import DENSE_PATH
from flashhead_edge.runtimes.vllm.head_access import head_of
from flashhead_edge.runtimes.vllm.settings import HeadSettings
from flashhead_edge.runtimes.vllm.shard import HeadShard, build_shard

#: Methods whose module has the rows as they are; the second is what quantized models give a head that they leave out.
_WITH_ROWS = (UnquantizedEmbeddingMethod, UnquantizedLinearMethod)
SMALL_HEAD = "this GPU reads the whole head in less time than two stages take"
_NAMED = "a request's grammar, bias or allowed ids name tokens"


class FlashHeadMethod(UnquantizedEmbeddingMethod):  # type: ignore[misc]
    """Logits in two stages; embedding, loading and the dense head are those of the method it stands for.

    Args:
        dense: The method that the module had.
        settings: How the head is served.

    Attributes:
        named_rows: Gives the rows, of so many, that name tokens and so must be exact; the worker sets it.
        adapters: Slots with a LoRA adapter that changes the head; the worker keeps it.
    """

    def __init__(self, dense: Any, settings: HeadSettings) -> None:
        super().__init__()
        self.dense = dense
        self.settings = settings
        self.named_rows: Callable[[int], Sequence[int]] = lambda num_rows: ()
        self.adapters: set[int] = set()
        self._shard: HeadShard | None = None

    def create_weights(self, *arguments: Any, **options: Any) -> None:
        """As the method it stands for."""
        self.dense.create_weights(*arguments, **options)

    def embedding(self, layer: torch.nn.Module, input_: torch.Tensor) -> torch.Tensor:
        """As the method it stands for: a tied head is the input embedding too."""
        rows: torch.Tensor = self.dense.embedding(layer, input_)
        return rows

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Build the tables, on the device and before vLLM measures its memory."""
        self.dense.process_weights_after_loading(layer)
        self._shard = None
        if most := self._max_rows(layer):
            self._open(layer).prepare(most)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of this device's columns.

        Args:
            layer: The head's module.
            x: Hidden states, [N, H].
            bias: Bias of the rows, or None.

        Returns:
            [N, W] in the type of the states.
        """
        reason = self._dense_reason(layer, x, bias)
        named = self.named_rows(len(x)) if reason is None else ()
        if reason is None and len(named) < len(x):
            return self._two_stage(layer, x, bias, named)
        DENSE_PATH.take(reason or _NAMED, len(x))
        dense: torch.Tensor = self.dense.apply(layer, x, bias=bias)
        return dense

    def _two_stage(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None, named: Sequence[int]
    ) -> torch.Tensor:
        """Logits in two stages but for the rows that name tokens, [N, W]."""
        logits = _logits(self._open(layer), x)
        DENSE_PATH.two_stage_rows += len(x) - len(named)
        if named:
            DENSE_PATH.take(_NAMED, len(named))
            rows = torch.tensor(named, device=x.device)
            logits[rows] = self.dense.apply(layer, x[rows], bias=bias)
        return logits

    def _dense_reason(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> str | None:
        """Why this call goes to the dense head, or None; judged by shapes and types only, never by values."""
        if x.ndim != 2:
            return f"hidden states have {x.ndim} dimensions instead of 2"
        max_rows = self._max_rows(layer)
        if len(x) > max_rows:
            return f"a step had more than {max_rows} rows" if max_rows else SMALL_HEAD
        if bias is not getattr(layer, "bias", None):
            return "the logits were asked for with another bias than the head's own"
        if self.adapters:
            return "a LoRA adapter changes the head"
        return None

    def _max_rows(self, layer: torch.nn.Module) -> int:
        """Rows of a step up to which it is scored in two stages."""
        return self.settings.max_rows or self._open(layer).max_rows

    def _open(self, layer: torch.nn.Module) -> HeadShard:
        """The tables for the weight that the module has now; a reloaded model has another one."""
        if self._shard is None or self._shard.rows is not layer.weight:
            part = layer.shard_indices
            first, after = part.org_vocab_start_index, part.org_vocab_end_index
            if layer.org_vocab_size != self.settings.index.vocab_size:
                raise BundleError(
                    "The index is of another vocabulary than the head.",
                    found=self.settings.index.vocab_size,
                    expected=layer.org_vocab_size,
                )
            bias = getattr(layer, "bias", None)
            self._shard = build_shard(
                self.settings.index,
                layer.weight,
                bias,
                first,
                after - first,
                self.settings.num_probes,
                scale_centroids=self.settings.scale_centroids,
            )
        return self._shard


def install(model: Any, settings: HeadSettings, model_config: Any) -> str | None:
    """Give a model's head two stages.

    Args:
        model: A model of vLLM, as constructed.
        settings: How the head is served.
        model_config: vLLM's ``ModelConfig``.

    Returns:
        Why the head stays dense, or None.
    """
    head = head_of(model)
    if head is None:
        return None  # a stage of a pipeline that has no head
    reason = None
    head_dtype = getattr(model_config, "head_dtype", model_config.dtype)
    if head_dtype != model_config.dtype:
        reason = f"head_dtype is {head_dtype} and the model's type {model_config.dtype}"
    elif type(head.quant_method) not in _WITH_ROWS:
        reason = f"the head is quantized ({type(head.quant_method).__name__}), so there are no rows to gather"
    else:
        head.quant_method = FlashHeadMethod(head.quant_method, settings)
    if reason is not None:
        DENSE_PATH.take(reason)
    return reason


def _logits(shard: HeadShard, states: torch.Tensor) -> torch.Tensor:
    """Logits of this device's columns, whose estimates stay below the best logit of all devices that share the head."""
    from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_gather

    if get_tensor_model_parallel_world_size() == 1:
        return shard.logits(states)
    scored = shard.score(states)
    gathered: torch.Tensor = tensor_model_parallel_all_gather(scored.best.unsqueeze(1), dim=1)
    return shard.fill(scored, gathered.amax(dim=1))
