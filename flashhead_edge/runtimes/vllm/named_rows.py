"""Which rows of a step belong to requests that name tokens: a grammar, a bias, allowed ids, wanted log-probabilities.

Such a request compares tokens that the two-stage head may not have opened, so its rows are scored by the dense head.
What requests ask for comes from the scheduler's output, which every runner of vLLM (0.14 to 0.33) gets at each step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from flashhead_edge.runtimes.vllm.head_access import adapter_layer, two_stage_methods

#: Settings of a request that name tokens by being there.
_NAMING = ("structured_outputs", "logit_bias", "allowed_token_ids", "logprob_token_ids")


def names_tokens(sampling: Any) -> bool:
    """Whether a request compares tokens that its text so far and the best logits do not.

    Args:
        sampling: vLLM's ``SamplingParams``, or None for a request that samples nothing.
    """
    if sampling is None:
        return False
    favours_used = (
        sampling.presence_penalty < 0 or sampling.frequency_penalty < 0 or 0 < sampling.repetition_penalty < 1
    )
    return favours_used or any(getattr(sampling, name, None) for name in _NAMING)


class NamedRows:
    """The rows of the step that a runner executes.

    Args:
        runner: vLLM's model runner.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._requests: set[str] = set()
        self._step: Any = None

    def begin(self, scheduler_output: Any) -> None:
        """A step begins.

        Args:
            scheduler_output: vLLM's ``SchedulerOutput``.
        """
        self._requests.difference_update(scheduler_output.finished_req_ids)
        for request in scheduler_output.scheduled_new_reqs:
            if names_tokens(request.sampling_params):
                self._requests.add(request.req_id)
            else:
                self._requests.discard(request.req_id)
        scheduled = scheduler_output.num_scheduled_tokens
        self._step = None if self._requests.isdisjoint(scheduled) else scheduler_output

    def end(self) -> None:
        """The step's logits are there; what is scored from now on are drafts and prompts."""
        self._step = None

    def __call__(self, num_rows: int) -> Sequence[int]:
        """Rows of the step that name tokens, ascending.

        Args:
            num_rows: Rows that are scored: one for each request, and one for each of its drafts.
        """
        if self._step is None:
            return ()
        batch = getattr(self._runner, "input_batch", None)
        if batch is None:  # the second runner keeps none between its calls
            return range(num_rows)
        drafts = self._step.scheduled_spec_decode_tokens
        rows: list[int] = []
        place = 0
        for request in batch.req_ids:
            after = place + 1 + len(drafts.get(request, ()))
            if request in self._requests:
                rows.extend(range(place, after))
            place = after
        # Rows that were counted otherwise than here cannot be told apart.
        return rows if place == num_rows else range(num_rows)


def attach(runner: Any) -> None:
    """Connect a runner with the two-stage head of its model; without one nothing happens.

    Args:
        runner: vLLM's model runner, its model loaded. This object's ``execute_model`` is replaced, its class is not.
    """
    model = runner.get_model()
    methods = two_stage_methods(model)
    if not methods:
        return
    rows, execute = NamedRows(runner), runner.execute_model

    @functools.wraps(execute)
    def execute_model(scheduler_output: Any, *arguments: Any, **options: Any) -> Any:
        rows.begin(scheduler_output)
        try:
            return execute(scheduler_output, *arguments, **options)
        finally:
            if hasattr(runner, "input_batch"):  # the second runner scores after this, when it samples
                rows.end()

    runner.execute_model = execute_model
    for method in methods:
        method.named_rows = rows
    layer = adapter_layer(model)
    if layer is not None:
        for method in methods:
            _watch_adapters(layer, method.adapters)


def _watch_adapters(layer: Any, slots: set[int]) -> None:
    """Keep the slots whose LoRA adapter changes the head; those of vLLM's warm-up are zero and change nothing."""
    set_lora, reset_lora = layer.set_lora, layer.reset_lora

    @functools.wraps(reset_lora)
    def reset(index: int) -> None:
        slots.discard(index)
        reset_lora(index)

    @functools.wraps(set_lora)
    def change(index: int, lora_a: Any, lora_b: Any, **options: Any) -> None:
        set_lora(index, lora_a, lora_b, **options)  # resets the slot first
        if lora_b.any():
            slots.add(index)

    layer.reset_lora, layer.set_lora = reset, change
