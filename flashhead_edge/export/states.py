"""Hidden states of a model: what its head is given, on text and on what the model writes itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import CalibrationError
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Passage:
    """A piece of text and the domain it stands for ("de", "code", "chat")."""

    domain: str
    text: str


@dataclass(frozen=True)
class HiddenStates:
    """States that went into the head.

    Attributes:
        hidden: Outputs of the final norm, [N, H] float32.
        domain: Domain of each state, [N] of str.
        next_token: Token that followed in the text, [N] int64, -1 where nothing did.
    """

    hidden: npt.NDArray[np.float32]
    domain: npt.NDArray[np.str_]
    next_token: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.hidden.shape[0])

    def select(self, rows: npt.NDArray[Any]) -> HiddenStates:
        """The states at ``rows`` (indices or a mask)."""
        return HiddenStates(self.hidden[rows], self.domain[rows], self.next_token[rows])

    @staticmethod
    def concatenate(parts: Sequence[HiddenStates]) -> HiddenStates:
        """Join sets of states of the same hidden size."""
        return HiddenStates(
            np.concatenate([part.hidden for part in parts]),
            np.concatenate([part.domain for part in parts]),
            np.concatenate([part.next_token for part in parts]),
        )


def teacher_forced_states(
    model: Any,
    tokenizer: Any,
    passages: Sequence[Passage],
    *,
    max_tokens: int = 512,
    progress: Progress = no_progress,
) -> HiddenStates:
    """States of a model that reads text.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer.
        passages: Texts, each read from its beginning.
        max_tokens: Tokens read of a passage.
        progress: Told of every passage.

    Returns:
        One state per token read.

    Raises:
        CalibrationError: No passage holds a token.
    """
    import torch

    parts = []
    with torch.inference_mode(), _captured_head_inputs(model, skip_head=True) as captured:
        for number, passage in enumerate(passages, start=1):
            ids = tokenizer(passage.text, return_tensors="pt")["input_ids"][:, :max_tokens].to(model.device)
            if ids.shape[1]:
                model(input_ids=ids, use_cache=False)
                following = np.append(ids[0, 1:].cpu().numpy(), -1)
                parts.append(_as_states(captured.pop(), [passage.domain], following))
            progress("reading calibration text", number, len(passages))
    if not parts:
        raise CalibrationError("The text holds no tokens.", hint="give a text file with some pages of text")
    return HiddenStates.concatenate(parts)


def continued_states(
    model: Any,
    tokenizer: Any,
    beginnings: Sequence[Passage],
    *,
    beginning_tokens: int = 12,
    new_tokens: int = 24,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 64,
    progress: Progress = no_progress,
) -> HiddenStates:
    """States of a model that continues beginnings with its own words.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer.
        beginnings: Texts; those with fewer tokens than ``beginning_tokens`` are grouped by length.
        beginning_tokens: Tokens taken of each text; may be one (the beginning-of-text token alone).
        new_tokens: Tokens written after each beginning.
        temperature: 0 for greedy, otherwise sampled.
        seed: Seed of the sampling.
        batch: Beginnings continued together.
        progress: Told of every step.

    Returns:
        One state per token written; ``next_token`` is the token that the model chose.
    """
    import torch

    groups: dict[int, list[tuple[str, list[int]]]] = {}
    for passage in beginnings:
        ids = tokenizer(passage.text)["input_ids"][:beginning_tokens]
        if ids:
            groups.setdefault(len(ids), []).append((passage.domain, ids))
    batches = [rows[i : i + batch] for rows in groups.values() for i in range(0, len(rows), batch)]
    generator = torch.Generator(device="cpu").manual_seed(seed)
    ends = _end_of_text_ids(model, tokenizer)
    parts = []
    total = len(batches) * new_tokens
    with torch.inference_mode(), _captured_head_inputs(model) as captured:
        for number, rows in enumerate(batches):
            domains = [domain for domain, _ in rows]
            ids = torch.tensor([tokens for _, tokens in rows], device=model.device)
            alive = np.ones(len(rows), dtype=bool)
            cache = None
            for step in range(new_tokens):
                output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = output.past_key_values
                chosen = _choose(output.logits[:, -1], temperature, generator)
                states = _as_states(captured.pop()[:, -1:], domains, chosen.cpu().numpy())
                parts.append(states.select(np.flatnonzero(alive)))
                alive &= ~np.isin(states.next_token, ends)
                progress("continuing beginnings", number * new_tokens + step + 1, total)
                if not alive.any():
                    break
                ids = chosen.unsqueeze(1)
            if not alive.any():  # the batch ended early; say that its remaining steps are done
                progress("continuing beginnings", (number + 1) * new_tokens, total)
    return HiddenStates.concatenate(parts)


@contextmanager
def _captured_head_inputs(model: Any, *, skip_head: bool = False) -> Iterator[list[torch.Tensor]]:
    """Collect what the head is given, [B, S, H] a call; optionally without running the head."""
    import torch

    captured: list[torch.Tensor] = []
    head = model.get_output_embeddings()
    if skip_head:
        model.set_output_embeddings(torch.nn.Identity())
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, arguments: captured.append(arguments[0])
    )
    try:
        yield captured
    finally:
        hook.remove()
        model.set_output_embeddings(head)


def _as_states(hidden: torch.Tensor, domains: Sequence[str], following: npt.NDArray[Any]) -> HiddenStates:
    """Flatten [B, S, H] states of B passages."""
    width = hidden.shape[-1]
    rows = hidden.reshape(-1, width).float().cpu().numpy()
    domain = np.repeat(np.asarray(domains, dtype=np.str_), hidden.shape[1])
    return HiddenStates(rows.copy(), domain, following.astype(np.int64))


def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Next tokens [B] from logits [B, V]."""
    import torch

    if temperature == 0.0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float() / temperature, dim=-1).cpu()
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1).to(logits.device)


def _end_of_text_ids(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a text, from the generation config and the tokenizer."""
    config = getattr(model, "generation_config", None)
    ids = getattr(config, "eos_token_id", None)
    found = set(ids if isinstance(ids, list) else [] if ids is None else [ids])
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    return sorted(found)
