"""What a model's files say about its head: where the tensors are and what happens to the logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import WeightError
from flashhead_edge.export.gguf_files import GgufFile
from flashhead_edge.export.model_config import ModelConfig
from flashhead_edge.export.model_types import ModelType, ScaleRule, model_type_of_gguf
from flashhead_edge.export.safetensors_files import SafetensorsFiles

if TYPE_CHECKING:
    from flashhead_edge.export.sources import ModelSource


class TensorFiles(Protocol):
    """Tensors by name, in whatever files they lie."""

    def first_of(self, candidates: Iterable[str]) -> str | None:
        """The first of ``candidates`` that is here, or None."""

    def near(self, name: str) -> str:
        """Names like ``name``, for messages."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor as float32."""

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors are the same."""


@dataclass(frozen=True)
class HeadFacts:
    """What is known before a number is read.

    Attributes:
        tensors: The model's tensors.
        embedding: Names the embedding may have.
        head: Names a head of its own may have.
        says_untied: Whether the config states that the two differ.
        vocab_size: V as declared, or None.
        hidden_size: H as declared, or None.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
        embedding_scale: Factor on the embedding.
    """

    tensors: TensorFiles
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    says_untied: bool
    vocab_size: int | None
    hidden_size: int | None
    logit_scale: float
    logit_softcap: float | None
    embedding_scale: float


def head_facts(source: ModelSource) -> HeadFacts:
    """Gather the facts from a folder's config or a GGUF file's metadata.

    Raises:
        SourceError: The files are damaged, or a setting is not a number.
        WeightError: A scale is zero or not finite.
    """
    return _of_gguf(source) if source.kind == "gguf" else _of_folder(source)


def _of_folder(source: ModelSource) -> HeadFacts:
    config = ModelConfig.from_folder(source.path)
    family = config.model_type
    hidden_size = _whole(config.number("hidden_size") or config.number("n_embd"))
    # A null is a statement ("none"); only a missing key means the family's default.
    stated = any("final_logit_softcapping" in level for level in (config.text, config.whole))
    softcap = config.number("final_logit_softcapping") if stated else family.softcap
    return HeadFacts(
        tensors=SafetensorsFiles(source.path),
        embedding=family.embedding,
        head=family.head,
        says_untied=config.says_untied,
        vocab_size=_whole(config.number("vocab_size")),
        hidden_size=hidden_size,
        logit_scale=_factor(family.logit_scale, lambda rule: config.number(rule.key)),
        logit_softcap=_softcap(family, softcap),
        embedding_scale=_embedding_scale(family, hidden_size, lambda rule: config.number(rule.key)),
    )


def _of_gguf(source: ModelSource) -> HeadFacts:
    file = GgufFile(source.path)
    family = model_type_of_gguf(file.architecture)
    hidden_size = _whole(file.get("embedding_length"))
    softcap = file.get("final_logit_softcapping")
    return HeadFacts(
        tensors=file,
        embedding=("token_embd.weight",),
        head=("output.weight",),
        says_untied=False,
        vocab_size=None,
        hidden_size=hidden_size,
        logit_scale=_factor(family.logit_scale, lambda rule: file.get(rule.gguf_key)),
        logit_softcap=_softcap(family, family.softcap if softcap is None else float(softcap)),
        embedding_scale=_embedding_scale(family, hidden_size, lambda rule: file.get(rule.gguf_key)),
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _softcap(family: ModelType, cap: float | None) -> float | None:
    return None if family.softcap is None or not cap else float(cap)


def _embedding_scale(family: ModelType, hidden_size: int | None, look_up: Callable[[ScaleRule], float | None]) -> float:
    if family.embedding_scale == "sqrt_hidden":
        return math.sqrt(hidden_size or 1)
    return _factor(family.embedding_scale, look_up)


def _factor(rule: ScaleRule | None, look_up: Callable[[ScaleRule], float | None]) -> float:
    if rule is None:
        return 1.0
    stated = look_up(rule)
    number = rule.default if stated is None else float(stated)
    if number == 0.0 or not math.isfinite(number):
        raise WeightError(f"The setting {rule.key} cannot scale anything.", found=number, expected="a finite number")
    return 1.0 / number if rule.divides else number
