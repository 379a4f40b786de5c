"""Comparing a bundle's head with the dense head, and both with dense heads in 8 and 4 bits, all really run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.errors import CalibrationError, OptionError
from flashhead_edge.export.dense_head import DensePrecision, write_dense_head
from flashhead_edge.export.heads import read_head
from flashhead_edge.export.states import HiddenStates
from flashhead_edge.index.quality import HeadQuality, measure_positions
from flashhead_edge.lm_head import LmHead
from flashhead_edge.progress import Progress, no_progress
from flashhead_edge.runtimes import open_head
from flashhead_edge.runtimes.session import open_session

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.export.sources import ModelSource
    from flashhead_edge.index.head_index import HeadIndex

#: What dense heads in few bits are made in.
DENSE_PRECISIONS: tuple[DensePrecision, ...] = ("int8", "int4")
_ROWS_AT_ONCE = 16384
#: Rows that tell a model from another of the same shape.
_ROWS_COMPARED = 256
#: Logits that a dense head gives at a time, in numbers: 32 MB.
_LOGITS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        quality: The two-stage head against the dense float32 head.
        dense_agreement: For "int8" and "int4", the share of all states, and of each domain's, for which that dense
            head chooses the token of the float32 head; empty where they were not run.
    """

    quality: HeadQuality
    dense_agreement: dict[str, tuple[float, dict[str, float]]]

    def as_dict(self) -> dict[str, Any]:
        """The keys of ``eval --json``; agreements of dense heads that were not run are None."""
        result = self.quality.as_dict()
        for precision in DENSE_PRECISIONS:
            total, domains = self.dense_agreement.get(precision, (None, {}))
            result[f"dense_{precision}_agreement"] = total
            for name, entry in result["per_domain"].items():
                entry[f"dense_{precision}_agreement"] = domains.get(name)
        return result


def evaluate_bundle(
    bundle: Bundle,
    states: HiddenStates,
    *,
    source: ModelSource | None = None,
    dense: bool = True,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Run a bundle's head and dense heads on the same states.

    Args:
        bundle: An opened bundle.
        states: States that had no part in calibration.
        source: The model that was exported, whose head is then the truth; without it the bundle's own table is,
            which half precision may have rounded.
        dense: Whether to run dense heads in int8 and int4 too, in ONNX Runtime, from temporary files of about 1.7
            times the bytes of an int8 head.
        threads: Threads of the operators; None leaves the choice to ONNX Runtime.
        progress: Told of every stage.

    Returns:
        Fidelity over all states and by domain.

    Raises:
        CalibrationError: The states do not fit the bundle.
        OptionError: The model is not the one that was exported.
    """
    manifest = bundle.manifest
    if states.hidden.ndim != 2 or not len(states) or states.hidden.shape[1] != manifest.hidden_size:
        raise CalibrationError(
            "The states do not fit the bundle.",
            found=f"states of shape {list(states.hidden.shape)}",
            expected=f"[N, {manifest.hidden_size}] with N of at least 1",
            hint="take states of the model that the bundle was exported from",
        )
    index = bundle.index()
    head = dense_head(bundle, index) if source is None else _head_of(source, bundle, index)
    runtime = open_head(bundle, threads=threads)
    scores = measure_positions(head, runtime, index, states.hidden, states.next_token, progress=progress)
    agreement: dict[str, tuple[float, dict[str, float]]] = {}
    for precision in DENSE_PRECISIONS if dense else ():
        same = _dense_tokens(head, precision, states.hidden, threads, progress) == scores.dense_tokens
        domains = {str(name): float(same[states.domain == name].mean()) for name in np.unique(states.domain)}
        agreement[precision] = (float(same.mean()), domains)
    return Evaluation(scores.summary(states.domain), agreement)


def dense_head(bundle: Bundle, index: HeadIndex | None = None) -> LmHead:
    """The dense head that a bundle's table holds.

    Args:
        bundle: An opened bundle.
        index: Its index, where it has been read already.

    Returns:
        Rows [V, H] float32 in the order of the vocabulary, widened from the table's precision.
    """
    manifest = bundle.manifest
    slots = (bundle.index() if index is None else index).slot_of_token
    table = bundle.rows()
    rows = np.empty((manifest.vocab_size, manifest.hidden_size), dtype=np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        rows[start : start + _ROWS_AT_ONCE] = table.slots(slots[start : start + _ROWS_AT_ONCE])
    bias = bundle.table(layout.ROW_BIAS).astype(np.float32).ravel()[slots] if manifest.has_bias else None
    return LmHead(rows, bias, manifest.logit_scale, manifest.logit_softcap, manifest.tied)


def _head_of(source: ModelSource, bundle: Bundle, index: HeadIndex) -> LmHead:
    """The head of the model that the bundle was exported from."""
    head, manifest = read_head(source), bundle.manifest
    found = (head.vocab_size, head.hidden_size, head.logit_scale, head.logit_softcap)
    expected = (manifest.vocab_size, manifest.hidden_size, manifest.logit_scale, manifest.logit_softcap)
    if found != expected:
        raise OptionError(
            f"{source.name} is not the model that the bundle was exported from.",
            found=f"a head with (V, H, scale, soft-cap) of {found}",
            expected=f"{manifest.source.name}, {expected}",
        )
    some = np.linspace(0, head.vocab_size - 1, _ROWS_COMPARED).astype(np.int64)
    table = bundle.rows()
    same = np.isclose(table.slots(index.slot_of_token[some]), head.rows[some], rtol=1e-2, atol=1e-4).all(axis=1)
    if not same.all():
        raise OptionError(
            f"{source.name} is not the model that the bundle was exported from.",
            found=f"{int((~same).sum())} of {len(some)} rows that differ from the bundle's",
            expected=f"the rows of {manifest.source.name}",
        )
    return head


def _dense_tokens(
    head: LmHead,
    precision: DensePrecision,
    hidden: npt.NDArray[np.float32],
    threads: int | None,
    progress: Progress,
) -> npt.NDArray[np.int64]:
    """Tokens of a dense head in ONNX Runtime, [N]."""
    stage = f"running the dense {precision} head"
    batch = max(1, _LOGITS_AT_ONCE // head.vocab_size)
    tokens = []
    with tempfile.TemporaryDirectory(prefix="flashhead-") as folder:
        progress(stage, 0, len(hidden))
        session = open_session(write_dense_head(head, precision, Path(folder), "dense.onnx"), threads=threads)
        for start in range(0, len(hidden), batch):
            tokens.extend(session.run(["token_ids"], {"hidden_states": hidden[start : start + batch]}))
            progress(stage, min(start + batch, len(hidden)), len(hidden))
        del session  # it maps the files
    return np.concatenate(tokens)
