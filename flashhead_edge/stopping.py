"""Stop strings: texts that end a generation, wherever the tokens split them."""

from __future__ import annotations

from collections.abc import Sequence

from flashhead_edge.errors import OptionError


class StopStrings:
    """Lets text through until one of the stop strings appears in it.

    Text that might be the beginning of a stop string is held back, so that nothing of one is ever passed on.

    Args:
        stop: The stop strings; none means that everything passes.

    Raises:
        OptionError: One of them is empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if isinstance(stop, str):
            stop = (stop,)
        if any(not text for text in stop):
            raise OptionError("A stop string is empty.", expected="at least one character", hint="leave it out")
        self._stop = tuple(stop)
        self._held = ""
        self.reached = False

    def push(self, piece: str) -> str:
        """Take more text.

        Args:
            piece: What follows the text so far.

        Returns:
            What may be passed on. Once a stop string is found, the text before it, and ``reached`` is true.
        """
        text = self._held + piece
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.reached = True
            self._held = ""
            return text[: min(found)]
        keep = max((self._overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of ``text`` with which ``stop`` begins."""
        return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
