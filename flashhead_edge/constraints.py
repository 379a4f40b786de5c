"""Constraints: texts of a regular expression, a JSON schema, a choice, or a context-free grammar.

llguidance (MIT) says which tokens may come next. It was chosen over xgrammar for devices: 8 MB without dependencies,
where xgrammar needs torch, with wheels for x86-64 and aarch64 and every Python from 3.9 on; both read a Hugging Face
``tokenizer.json``.

Where few tokens may come, exactly those are scored, and greedy decoding always scores all that may: the best allowed
token is often an unlikely one, for which the centroids were not fitted, and no bound on a cluster's logits is tight
enough to leave it out. Where many may come and one is drawn, the candidates among them are scored, and then the allowed
tokens of closed clusters, the most promising first, until none is left that could, by what calibration knows of their
cluster's score and its error, come before the best of them; the others share in the estimates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.errors import OptionalDependencyError, OptionError

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.token_scores import TokenScores

#: Up to this many allowed tokens are scored one by one: half a millisecond at a hidden size of 600.
_FEW = 8192


@dataclass(frozen=True)
class Constraint:
    """What a text must be; made by one of the class methods.

    Attributes:
        kind: "regex", "json_schema", "choice" or "grammar".
        source: The expression, the schema as JSON, the choices as JSON, or the grammar.
    """

    kind: str
    source: str

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Texts that a regular expression matches as a whole, in the syntax of Rust's regex crate.

        Args:
            pattern: The expression.
        """
        return cls("regex", pattern)

    @classmethod
    def json_schema(cls, schema: str | Mapping[str, Any]) -> Constraint:
        """JSON that follows a schema.

        Args:
            schema: The schema, as JSON or as a mapping.

        Raises:
            OptionError: It is no JSON.
        """
        try:
            text = json.dumps(json.loads(schema) if isinstance(schema, str) else schema)
        except (TypeError, ValueError) as error:
            raise OptionError("The JSON schema is no JSON.", found=str(error)) from error
        return cls("json_schema", text)

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Constraint:
        """One of several texts.

        Args:
            texts: The texts, at least one, none empty.

        Raises:
            OptionError: There is none, or one is empty.
        """
        if not texts or not all(texts):
            raise OptionError("A choice needs texts.", found=list(texts), expected="at least one, none empty")
        return cls("choice", json.dumps(list(texts)))

    @classmethod
    def grammar(cls, lark: str) -> Constraint:
        """Texts of a context-free grammar in llguidance's variant of Lark.

        Args:
            lark: The grammar; it begins at ``start``.
        """
        return cls("grammar", lark)

    def llguidance_grammar(self) -> str:
        """The grammar as llguidance reads it.

        Raises:
            OptionalDependencyError: llguidance is not installed.
            OptionError: llguidance refuses it.
        """
        matcher = _llguidance().LLMatcher
        if self.kind == "choice":
            pattern = "|".join(re.escape(text) for text in json.loads(self.source))
            grammar: str = matcher.grammar_from_regex(pattern)
        elif self.kind == "grammar":
            grammar = matcher.grammar_from_lark(self.source)
        else:
            grammar = {"regex": matcher.grammar_from_regex, "json_schema": matcher.grammar_from_json_schema}[self.kind](
                self.source
            )
        is_error, messages = matcher.validate_grammar_with_warnings(grammar)
        if is_error:
            raise OptionError(f"The {self.kind.replace('_', ' ')} cannot be used.", found="; ".join(messages))
        return grammar


class ConstraintProcessor:
    """A logit processor that leaves the tokens which a constraint allows; each text needs its own.

    Args:
        constraint: What the text must be.
        bundle: Whose tokenizer reads it.
        scores_all: Score every token that may come.

    Raises:
        OptionalDependencyError: llguidance is not installed.
        OptionError: The constraint cannot be used.
    """

    def __init__(self, constraint: Constraint, bundle: Bundle, *, scores_all: bool = False) -> None:
        manifest = bundle.manifest
        tokenizer = _tokenizer(bundle.file(layout.TOKENIZER), manifest.vocab_size, tuple(manifest.eos_token_ids))
        self._matcher = _llguidance().LLMatcher(tokenizer, constraint.llguidance_grammar(), log_level=0)
        self._words = np.zeros((1, -(-manifest.vocab_size // 32)), np.int32)
        self._vocab_size = manifest.vocab_size
        self._scores_all = scores_all
        self._read = 0

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """See :class:`flashhead_edge.processors.LogitProcessor`."""
        self._follow(token_ids)
        allowed = self._allowed()
        scores.mask(allowed)
        if self._scores_all or np.count_nonzero(allowed) <= _FEW:
            scores.score_all()
        else:
            scores.score_promising()

    def is_complete(self, token_ids: Sequence[int]) -> bool:
        """Whether nothing but the end can follow.

        Args:
            token_ids: Tokens generated so far.
        """
        self._follow(token_ids)
        return bool(self._matcher.is_stopped())

    def _follow(self, token_ids: Sequence[int]) -> None:
        """Tell the matcher of tokens that it has not seen."""
        for token in token_ids[self._read :]:
            self._matcher.consume_token(int(token))
        self._read = len(token_ids)
        if self._matcher.is_error():
            raise OptionError("The constraint cannot be followed.", found=self._matcher.get_error())

    def _allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, [V]."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._words, 0)
        bits = np.unpackbits(self._words.view(np.uint8), bitorder="little")
        return bits[: self._vocab_size].astype(np.bool_)


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise OptionalDependencyError("llguidance", "constraints", "A constraint") from error
    return llguidance


@lru_cache(maxsize=4)
def _tokenizer(file: Path, vocab_size: int, end_ids: tuple[int, ...]) -> Any:
    """Llguidance's view of a tokenizer; a second or so to make."""
    return _llguidance().LLTokenizer(str(file), n_vocab=vocab_size, eos_token=list(end_ids) or None)
