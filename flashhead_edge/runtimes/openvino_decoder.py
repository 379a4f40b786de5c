"""Whole-model decoding on OpenVINO: the same graph that ONNX Runtime runs, body and head in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError
from flashhead_edge.runtimes.base import HeadOutput, StepOutput
from flashhead_edge.runtimes.openvino import compile_model

if TYPE_CHECKING:
    from flashhead_edge.manifest import BodyRecord
    from flashhead_edge.runtimes.batch_decoder import BatchDecoder

_OUTPUTS = (*HeadOutput._fields, "hidden_states")


class OpenVinoDecoder:
    """Runs a model token by token; what :class:`~flashhead_edge.runtimes.decoder.Decoder` does, for one text.

    OpenVINO's attention returns keys and values of all positions, so each step's outputs are the next step's inputs.

    Args:
        graph: ``decode.onnx`` or ``dense.onnx`` of a bundle.
        body: Sizes and names of the cache, from the manifest.
        threads: Threads of the operators; None leaves the choice to OpenVINO.
        device: Device of OpenVINO, such as "CPU".

    Raises:
        OptionalDependencyError: OpenVINO is not installed.
        RuntimeUnavailableError: The device is not there.
        BundleError: OpenVINO refuses the graph.
    """

    def __init__(self, graph: Path, body: BodyRecord, *, threads: int | None = None, device: str = "CPU") -> None:
        self.body = body
        self._request = compile_model(graph, threads=threads, device=device).create_infer_request()
        self._device = device
        past = (*body.past_key_names, *body.past_value_names)
        present = (*body.present_key_names, *body.present_value_names)
        self._names = tuple(zip(past, present, strict=True))
        self._cache: dict[str, npt.NDArray[np.float32]] = {}
        self._position = 0
        self.reset()

    @property
    def providers(self) -> tuple[str, ...]:
        """OpenVINO's device."""
        return (self._device,)

    @property
    def position(self) -> int:
        """Tokens that the cache holds."""
        return self._position

    def reset(self, *, batch: int = 1, positions: int = 0) -> None:
        """Forget every token.

        Args:
            batch: 1: with more, OpenVINO 2026.4 imports attention that returns no rows.
            positions: Tokens the text will have; the cache grows with it.

        Raises:
            OptionError: More than one text, or longer than the model's context.
        """
        if batch != 1:
            raise _one_text_at_a_time(f"{batch} texts")
        self._check_length(positions)
        shape = (1, self.body.num_kv_heads, 0, self.body.head_dim)
        self._cache = {past: np.zeros(shape, np.float32) for past, _ in self._names}
        self._position = 0

    def rewind(self, positions: int) -> None:
        """Forget the last tokens of every row.

        Args:
            positions: Tokens to keep.

        Raises:
            OptionError: The cache holds fewer.
        """
        if not 0 <= positions <= self._position:
            raise OptionError(
                "The cache cannot be rewound to there.", found=positions, expected=f"0 to {self._position}"
            )
        self._cache = {name: np.ascontiguousarray(values[:, :, :positions]) for name, values in self._cache.items()}
        self._position = positions

    def for_batch(self, *, rows: int, positions: int) -> BatchDecoder:
        """Texts are not decoded together on OpenVINO.

        Raises:
            OptionError: Always.
        """
        raise _one_text_at_a_time(f"{rows} rows")

    def step(self, input_ids: npt.NDArray[np.int64], *, scored: int = 1, greedy: bool = False) -> StepOutput:
        """Feed tokens and run the head on the last positions.

        Args:
            input_ids: The prompt, or the token chosen last, [1, S] int64.
            scored: How many of the last positions of each row to score, 1 to S.
            greedy: Of no account: all logits of candidates are exact.

        Returns:
            The head's outputs for the tokens that follow.

        Raises:
            OptionError: The shape is wrong, or the tokens do not fit the model's context.
        """
        if input_ids.ndim != 2 or len(input_ids) != 1 or not 1 <= scored <= input_ids.shape[1]:
            raise OptionError(
                "The token ids have a wrong shape.", found=f"{input_ids.shape}, {scored} scored", expected="[1, S]"
            )
        length = input_ids.shape[1]
        total = self._position + length
        self._check_length(total)
        places = np.arange(length - scored, length)
        found = self._request.infer(
            {
                "input_ids": np.ascontiguousarray(input_ids, dtype=np.int64),
                "attention_mask": np.ones((1, total), np.int64),
                "scored_positions": np.stack([np.zeros_like(places), places], axis=1),
                **self._cache,
            }
        )
        self._cache = {past: found[present].copy() for past, present in self._names}
        self._position = total
        *head, hidden = (found[name].copy() for name in _OUTPUTS)
        return StepOutput(HeadOutput(*head), hidden)

    def _check_length(self, positions: int) -> None:
        """Refuse more tokens than the model has positions for."""
        if positions > self.body.max_positions:
            raise OptionError(
                "The sequence is longer than the model's context.",
                found=f"{positions} tokens",
                expected=f"at most {self.body.max_positions}",
                hint="shorten the prompt or ask for fewer new tokens",
            )


def _one_text_at_a_time(found: str) -> OptionError:
    return OptionError(
        "OpenVINO decodes one text at a time.", found=found, expected="one", hint="take --runtime onnxruntime"
    )
