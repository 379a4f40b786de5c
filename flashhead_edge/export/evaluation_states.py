"""Hidden states to evaluate with: of a model that reads text files, and that continues prompts with its own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flashhead_edge.errors import CalibrationError
from flashhead_edge.export.states import HiddenStates, Passage, continued_states, teacher_forced_states
from flashhead_edge.progress import Progress, no_progress

#: A line that parts two passages of a text file.
SEPARATOR = "---"
CONTINUATION = "continuation"


def evaluation_states(
    load: Callable[[], tuple[Any, Any]],
    texts: Sequence[Path],
    prompts: Path | None = None,
    *,
    max_tokens: int = 512,
    new_tokens: int = 64,
    progress: Progress = no_progress,
) -> HiddenStates:
    """Collect states from files.

    Args:
        load: Gives the transformers model and its tokenizer; called when the files have been read.
        texts: Text files, each a domain named by its stem; passages are parted by lines of ``---``.
        prompts: Beginnings, one a line, that the model continues greedily: the domain "continuation".
        max_tokens: Tokens read of a passage.
        new_tokens: Tokens written after a beginning.
        progress: Told of every stage.

    Returns:
        The states, one a token read or written.

    Raises:
        CalibrationError: A file cannot be read or holds no text, or two files have the same stem.
    """
    stems = [path.stem for path in texts]
    if doubled := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise CalibrationError(
            "Two text files have the same name.", found=", ".join(doubled), expected="one file a domain"
        )
    passages = [Passage(path.stem, text) for path in texts for text in _pieces(path, SEPARATOR)]
    lines = [] if prompts is None else [Passage(CONTINUATION, text) for text in _pieces(prompts, None)]
    if not passages and not lines:
        raise CalibrationError("There is nothing to evaluate with.", expected="text files or prompts")
    loaded = load()
    parts = []
    if passages:
        parts.append(teacher_forced_states(*loaded, passages, max_tokens=max_tokens, progress=progress))
    if lines:
        parts.append(
            continued_states(
                *loaded, lines, beginning_tokens=max_tokens, new_tokens=new_tokens, temperature=0.0, progress=progress
            )
        )
    return HiddenStates.concatenate(parts)


def _pieces(path: Path, separator: str | None) -> list[str]:
    """Passages of a file, or its lines where there is no separator."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"{path.name} cannot be read as UTF-8 text.", found=error, expected="a text file"
        ) from error
    pieces = [[]] if separator is not None else [[line] for line in lines]
    for line in lines if separator is not None else ():
        if line.strip() == separator:
            pieces.append([])
        else:
            pieces[-1].append(line)
    texts = ["\n".join(piece).strip("\n") for piece in pieces]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise CalibrationError(f"{path.name} holds no text.", hint="give a file with some pages of text")
    return texts
