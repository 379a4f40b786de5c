"""Calibration states: from the shipped text, from the model alone, from a user's text, or from a file of states.

What decides is that the states cover what the model will write, so the shipped text spans some thirty languages, code,
markup, tables and chat turns, is read by the model, and its beginnings are continued by the model itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from flashhead_edge.errors import CalibrationError
from flashhead_edge.export.state_files import load_states
from flashhead_edge.export.states import HiddenStates, Passage, continued_states, teacher_forced_states
from flashhead_edge.progress import Progress, no_progress

BUILTIN, SELF = "builtin", "self"
#: One in this many passages or states of a user's file is kept for the check.
_CHECK_EVERY = 10
#: Characters of a passage cut from a text file: some 200 tokens.
_PASSAGE_CHARACTERS = 800
_SELF_BEGINNINGS, _SELF_TOKENS = 96, 48


@dataclass(frozen=True)
class Calibration:
    """States to cluster for, and states to check the result with.

    Attributes:
        source: "builtin", "self" or the name of a file.
        states: Calibration states.
        check: States that have no part in calibration.
    """

    source: str
    states: HiddenStates
    check: HiddenStates


def needs_model(calibration: str) -> bool:
    """Whether states have to be computed: anything but a file of states."""
    return not calibration.endswith(".safetensors")


def calibrate(
    calibration: str,
    load: Callable[[], tuple[Any, Any]],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Calibration:
    """Collect calibration states.

    Args:
        calibration: "builtin", "self", a text file, or a ``.safetensors`` file of states.
        load: Gives the transformers model and its tokenizer; called only where they are needed.
        seed: Seed of sampled text.
        progress: Told of every stage.

    Returns:
        States for clustering and for the check.

    Raises:
        CalibrationError: The file is missing, empty or unreadable.
    """
    if calibration == BUILTIN:
        passages, check = _builtin_passages()
        return _from_text(BUILTIN, load(), passages, check, progress)
    if calibration == SELF:
        return _from_model(load(), seed, progress)
    path = Path(calibration)
    if not path.is_file():
        raise CalibrationError(
            f"There is no calibration file {calibration!r}.",
            expected="builtin, self, a text file, or a .safetensors file of hidden states",
        )
    if not needs_model(calibration):
        return _split(path.name, load_states(path))
    passages, check = _file_passages(path)
    return _from_text(path.name, load(), passages, check, progress)


def _from_text(
    name: str, loaded: tuple[Any, Any], passages: list[Passage], check: list[Passage], progress: Progress
) -> Calibration:
    """Read passages, and let the model continue their beginnings."""
    parts = []
    for group in (passages, check):
        read = teacher_forced_states(*loaded, group, progress=progress)
        parts.append(HiddenStates.concatenate([read, continued_states(*loaded, group, progress=progress)]))
    return Calibration(name, *parts)


def _from_model(loaded: tuple[Any, Any], seed: int, progress: Progress) -> Calibration:
    """Let the model write from its beginning-of-text token, sampled and then greedily."""
    model, tokenizer = loaded
    start = tokenizer.bos_token or tokenizer.eos_token or "\n"
    beginnings = [Passage(SELF, start)] * _SELF_BEGINNINGS
    sampled = continued_states(
        model,
        tokenizer,
        beginnings,
        beginning_tokens=1,
        new_tokens=_SELF_TOKENS,
        temperature=1.0,
        seed=seed,
        progress=progress,
    )
    return _split(SELF, sampled)


def _split(name: str, states: HiddenStates) -> Calibration:
    """Keep every tenth run of states for the check; neighbours are too alike to part."""
    if len(states) < 2 * _CHECK_EVERY:
        raise CalibrationError(
            "There are too few calibration states.",
            found=len(states),
            expected="about 2000 or more",
            hint="calibrate with the shipped text: --calibration builtin",
        )
    run = max(1, len(states) // 100)
    kept = (np.arange(len(states)) // run) % _CHECK_EVERY == _CHECK_EVERY - 1
    return Calibration(name, states.select(~kept), states.select(kept))


def _builtin_passages() -> tuple[list[Passage], list[Passage]]:
    """The shipped text: passages to calibrate with, passages to check with."""
    file = resources.files("flashhead_edge.export") / "data" / "calibration.jsonl"
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    both: dict[str, list[Passage]] = {"calibration": [], "check": []}
    for record in records:
        both[record["split"]].append(Passage(record["domain"], record["text"]))
    return both["calibration"], both["check"]


def _file_passages(path: Path) -> tuple[list[Passage], list[Passage]]:
    """Cut a text file at paragraph ends into passages of some 200 tokens."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path.name} cannot be read as UTF-8 text.", found=error) from error
    pieces: list[str] = []
    for paragraph in text.split("\n\n"):
        if pieces and len(pieces[-1]) + len(paragraph) < _PASSAGE_CHARACTERS:
            pieces[-1] += "\n\n" + paragraph
        else:
            pieces.extend(
                paragraph[i : i + 2 * _PASSAGE_CHARACTERS] for i in range(0, len(paragraph), 2 * _PASSAGE_CHARACTERS)
            )
    passages = [Passage(path.stem, piece) for piece in pieces if piece.strip()]
    if len(passages) < 2:
        raise CalibrationError(
            f"{path.name} holds too little text.",
            found=f"{len(text)} characters",
            expected="some pages; a few thousand words make a good index",
            hint="calibrate with the shipped text: --calibration builtin",
        )
    check = passages[_CHECK_EVERY - 1 :: _CHECK_EVERY] or passages[-1:]
    return [passage for passage in passages if passage not in check], check
