"""The head of a model, read from its files without loading the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import SourceError, WeightError
from flashhead_edge.export.head_facts import HeadFacts, head_facts
from flashhead_edge.lm_head import LmHead

if TYPE_CHECKING:
    from flashhead_edge.export.sources import ModelSource


def read_head(source: ModelSource) -> LmHead:
    """Read the head: its rows, bias, scale and soft-cap.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.

    Returns:
        The head, rows [V, H] float32; ``tied`` says whether the embedding holds the same numbers.

    Raises:
        SourceError: The tensors are missing or the files are damaged.
        WeightError: The rows have another shape than declared, or hold NaN or infinity.
    """
    facts = head_facts(source)
    name, tied = _head_tensor(facts)
    _check_shape(facts, name)
    bias_name = facts.tensors.first_of(candidate.removesuffix("weight") + "bias" for candidate in facts.head)
    head = LmHead(
        rows=facts.tensors.read(name),
        bias=None if bias_name is None else facts.tensors.read(bias_name),
        logit_scale=facts.logit_scale,
        logit_softcap=facts.logit_softcap,
        tied=tied,
    )
    if head.bias is not None and head.bias.shape != (head.vocab_size,):
        raise WeightError("The head's bias does not fit its rows.", found=head.bias.shape, expected=(head.vocab_size,))
    head.check_finite()
    return head


def read_embedding(source: ModelSource) -> npt.NDArray[np.float32]:
    """Read the input embedding, which untied models need beside the head.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.

    Returns:
        [V, H] float32, not yet multiplied by :func:`embedding_scale`.

    Raises:
        SourceError: The tensor is missing or its file is damaged.
        WeightError: It has another shape than declared, or holds NaN or infinity.
    """
    facts = head_facts(source)
    name = facts.tensors.first_of(facts.embedding) or _head_tensor(facts)[0]
    _check_shape(facts, name)
    rows = facts.tensors.read(name)
    LmHead(rows).check_finite()
    return rows


def embedding_scale(source: ModelSource) -> float:
    """The factor on embedded tokens: the root of the hidden size for Gemma, a setting for Granite, else 1.0."""
    return head_facts(source).embedding_scale


def _head_tensor(facts: HeadFacts) -> tuple[str, bool]:
    """Name of the tensor that holds the rows, and whether the embedding is the same.

    A head of its own that equals the embedding counts as tied whatever the config says, and one that differs as
    untied, as in transformers.
    """
    head, embedding = (facts.tensors.first_of(names) for names in (facts.head, facts.embedding))
    if head is not None:
        return head, embedding is None or facts.tensors.equal(head, embedding)
    if embedding is None:
        raise SourceError(
            "The model's embedding and head are not where they should be.",
            found=facts.tensors.near(facts.embedding[0]),
            expected=" or ".join((*facts.embedding, *facts.head)),
            hint="check that config.json belongs to these weights",
        )
    if facts.says_untied:
        raise SourceError(
            "The model's head is missing.",
            found=f"tie_word_embeddings is false; tensors: {facts.tensors.near(facts.head[0])}",
            expected=" or ".join(facts.head),
            hint="if the embedding is the head, set tie_word_embeddings to true in config.json",
        )
    return embedding, True


def _check_shape(facts: HeadFacts, name: str) -> None:
    shape = facts.tensors.shape(name)
    wanted = (facts.vocab_size, facts.hidden_size)
    fits = len(shape) == 2 and all(want is None or want == size for want, size in zip(wanted, shape, strict=True))
    if not fits or 0 in shape:
        raise WeightError(
            f"The tensor {name} has another shape than the model declares.",
            found=list(shape),
            expected=f"[{wanted[0] or 'vocabulary size'}, {wanted[1] or 'hidden size'}]",
            hint="check that the config belongs to these weights",
        )
