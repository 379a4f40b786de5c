"""Whole-model decoding: body and head in one ONNX graph, with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.runtimes.base import HeadOutput, StepOutput
from flashhead_edge.runtimes.batch_decoder import BatchDecoder
from flashhead_edge.runtimes.session import CPU_PROVIDER, CUDA_PROVIDERS, bind_greedy, can_be_greedy, open_session

if TYPE_CHECKING:
    import onnxruntime

    from flashhead_edge.manifest import BodyRecord

#: The head's outputs and the states that it saw.
STEP_OUTPUTS = (*HeadOutput._fields, "hidden_states")
_DTYPE_OF_TENSOR = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class AnyDecoder(Protocol):
    """Runs a model token by token; methods as in :class:`Decoder`.

    Attributes:
        body: Sizes and names of the cache.
    """

    body: BodyRecord

    @property
    def providers(self) -> tuple[str, ...]:
        """What executes the model, most preferred first."""

    @property
    def position(self) -> int:
        """Tokens that the cache holds."""

    def reset(self, *, batch: int = 1, positions: int = 0) -> None:
        """Forget every token."""

    def rewind(self, positions: int) -> None:
        """Forget the last tokens of every row."""

    def step(self, input_ids: npt.NDArray[np.int64], *, scored: int = 1, greedy: bool = False) -> StepOutput:
        """Feed tokens and run the head on the last positions."""

    def for_batch(self, *, rows: int, positions: int) -> BatchDecoder:
        """A decoder of texts of different lengths."""


class KvCache:
    """Keys and values of the positions so far, one buffer [B, kv heads, capacity, head dim] a layer and kind.

    Each buffer is bound as past and as present at once: GroupQueryAttention then writes only the new positions. With
    separate tensors it would copy the whole past at every step (20 ms against 13 ms a step for Gemma-3-270M at 600
    positions). The length of the past comes from the attention mask, so positions beyond it are never read.

    Args:
        session: Runs the graph whose cache this is.
        body: Sizes and names, from the manifest.
    """

    def __init__(self, session: onnxruntime.InferenceSession, body: BodyRecord) -> None:
        self.body = body
        past = (*body.past_key_names, *body.past_value_names)
        present = (*body.present_key_names, *body.present_value_names)
        self._names = tuple(zip(past, present, strict=True))
        types = {tensor.name: tensor.type for tensor in session.get_inputs()}
        self.dtype = _DTYPE_OF_TENSOR[types[past[0]]]
        self._device = "cuda" if session.get_providers()[0] in CUDA_PROVIDERS else "cpu"
        self._buffers: list[onnxruntime.OrtValue] = []
        self.batch = 0
        self.capacity = 0

    def reserve(self, binding: onnxruntime.IOBinding, *, batch: int, positions: int, keep: int = 0) -> None:
        """Make room, and bind the buffers if they are new.

        Args:
            binding: Where past and present are bound.
            batch: B, sequences side by side.
            positions: Least capacity afterwards.
            keep: Leading positions whose content must survive; they are copied where the buffers must grow.
        """
        if batch == self.batch and positions <= self.capacity:
            return
        from onnxruntime import OrtValue

        shape = (batch, self.body.num_kv_heads, positions, self.body.head_dim)
        outgrown, self._buffers = (self._buffers if keep else []), []
        for index, (past, present) in enumerate(self._names):
            if keep:
                content = np.zeros(shape, self.dtype)
                content[:, :, :keep] = outgrown[index].numpy()[:, :, :keep]
                buffer = OrtValue.ortvalue_from_numpy(content, self._device, 0)
            else:
                buffer = OrtValue.ortvalue_from_shape_and_type(shape, self.dtype, self._device, 0)
            binding.bind_ortvalue_input(past, buffer)
            binding.bind_ortvalue_output(present, buffer)
            self._buffers.append(buffer)
        self.batch, self.capacity = batch, positions


class Decoder:
    """Runs a model token by token.

    Args:
        graph: ``decode.onnx`` or ``dense.onnx`` of a bundle.
        body: Sizes and names of the cache, from the manifest.
        threads: Threads of the operators; None leaves the choice to ONNX Runtime.
        providers: Execution providers; one that cannot be used is an error, never a silent fallback.
        outputs: Outputs to fetch, all for :meth:`step`; greedy loops need only "token_ids".
        profile: Where ONNX Runtime keeps the time of every node, see :func:`open_session`; None for none.

    Raises:
        RuntimeUnavailableError: A provider cannot be used here.
        BundleError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        graph: Path,
        body: BodyRecord,
        *,
        threads: int | None = None,
        providers: Sequence[str] = (CPU_PROVIDER,),
        outputs: Sequence[str] = STEP_OUTPUTS,
        profile: Path | None = None,
    ) -> None:
        self._session = open_session(graph, threads=threads, providers=providers, profile=profile)
        self._outputs = tuple(outputs)
        _check_names(graph.name, self._session, body, self._outputs)
        self.body = body
        self._binding = self._session.io_binding()
        self._cache = KvCache(self._session, body)
        self._position = 0
        self._scored = (0, 0, 0)
        self._greedy = False
        self._can_be_greedy = can_be_greedy(self._session)

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers of the session, as ONNX Runtime reports them."""
        return tuple(self._session.get_providers())

    @property
    def position(self) -> int:
        """Tokens that the cache holds."""
        return self._position

    def end_profile(self) -> Path:
        """End the profile that was asked for, and return its file."""
        return Path(self._session.end_profiling())

    def for_batch(self, *, rows: int, positions: int) -> BatchDecoder:
        """A decoder of texts of different lengths over the same session, with a cache of its own.

        Args:
            rows: Texts side by side at most.
            positions: Tokens that a text can have.

        Raises:
            OptionError: Out of range, or the session does not run on the CPU.
        """
        self._check_length(positions)
        if self._session.get_providers()[0] != CPU_PROVIDER:
            raise OptionError(
                "Texts of different lengths are decoded on the CPU only.",
                found=self._session.get_providers()[0],
                expected=CPU_PROVIDER,
            )
        dtype = self._cache.dtype
        return BatchDecoder(self._session, self.body, rows=rows, positions=positions, dtype=dtype, outputs=STEP_OUTPUTS)

    def reset(self, *, batch: int = 1, positions: int = 0) -> None:
        """Forget every token.

        Args:
            batch: B of the steps to come.
            positions: Tokens a sequence will have; the cache grows by itself, but room made now need not be copied.
        """
        self._position = 0
        if positions:
            self._check_length(positions)
            self._cache.reserve(self._binding, batch=batch, positions=positions)

    def step(self, input_ids: npt.NDArray[np.int64], *, scored: int = 1, greedy: bool = False) -> StepOutput:
        """Feed tokens and run the head on the last positions.

        Args:
            input_ids: The prompt, or the token chosen last, [B, S] int64; sequences of a batch are equally long. After
                the prompt, ONNX Runtime's attention takes S > 1 for B = 1 only.
            scored: How many of the last positions of each row to score, 1 to S.
            greedy: Whether only the greedy token matters: candidates that cannot be it may then keep an estimate for a
                logit, below the token's, which some heads make of half the bytes.

        Returns:
            The head's outputs for the tokens that follow, position by position and row by row.

        Raises:
            OptionError: The shape is wrong, or the tokens do not fit the model's context.
        """
        *head, hidden = self.run(input_ids, scored=scored, greedy=greedy)
        return StepOutput(HeadOutput(*head), hidden)

    def rewind(self, positions: int) -> None:
        """Forget the last tokens of every row, such as drafted ones that were refused.

        Args:
            positions: Tokens to keep; what the cache holds beyond them is written over.

        Raises:
            OptionError: The cache holds fewer.
        """
        if not 0 <= positions <= self._position:
            raise OptionError(
                "The cache cannot be rewound to there.", found=positions, expected=f"0 to {self._position}"
            )
        self._position = positions

    def run(
        self, input_ids: npt.NDArray[np.int64], *, scored: int = 1, greedy: bool = False
    ) -> tuple[npt.NDArray[Any], ...]:
        """Feed tokens and fetch the outputs chosen at construction; otherwise as :meth:`step`."""
        batch, length = self._check_shape(input_ids)
        if not 1 <= scored <= length:
            raise OptionError(
                "The number of scored positions is out of range.", found=scored, expected=f"1 to {length}"
            )
        total = self._position + length
        self._check_length(total)
        if batch != self._cache.batch or total > self._cache.capacity:
            roomy = min(self.body.max_positions, max(total, 2 * self._position))
            self._cache.reserve(self._binding, batch=batch, positions=roomy, keep=self._position)
        self._binding.bind_cpu_input("input_ids", np.ascontiguousarray(input_ids, dtype=np.int64))
        self._binding.bind_cpu_input("attention_mask", np.ones((batch, total), np.int64))
        if (batch, length, scored) != self._scored:  # what is bound stays bound
            self._scored = (batch, length, scored)
            row, place = np.indices((batch, scored), np.int64)
            scored_positions = np.stack([row.ravel(), place.ravel() + length - scored], axis=1)
            self._binding.bind_cpu_input("scored_positions", scored_positions)
        if greedy is not self._greedy and self._can_be_greedy:
            self._greedy = greedy
            bind_greedy(self._binding, greedy)
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")  # anew, so that earlier results are not overwritten
        self._execute()
        self._position = total
        # Outputs come in the order of their first binding: the cache's, then the head's. Only those are unwrapped.
        values = self._binding.get_outputs_as_ortvaluevector()
        first = len(values) - len(self._outputs)
        return tuple(values[first + i].numpy() for i in range(len(self._outputs)))

    def _execute(self) -> None:
        """Run the session on what is bound."""
        self._session.run_with_iobinding(self._binding)

    def _check_shape(self, input_ids: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Return [B, S] of fitting ids."""
        if input_ids.ndim != 2 or 0 in input_ids.shape:
            raise OptionError("The token ids have a wrong shape.", found=input_ids.shape, expected="[B, S], not empty")
        batch, length = input_ids.shape
        if self._position and batch != self._cache.batch:
            raise OptionError(
                "The batch changed in the middle of a sequence.",
                found=batch,
                expected=self._cache.batch,
                hint="call reset() before the first step of another batch",
            )
        return batch, length

    def _check_length(self, positions: int) -> None:
        """Refuse more tokens than the model has positions for."""
        if positions > self.body.max_positions:
            raise OptionError(
                "The sequence is longer than the model's context.",
                found=f"{positions} tokens",
                expected=f"at most {self.body.max_positions}",
                hint="shorten the prompt or ask for fewer new tokens",
            )


def _check_names(graph: str, session: onnxruntime.InferenceSession, body: BodyRecord, outputs: tuple[str, ...]) -> None:
    """Refuse a graph that lacks an input or output that a step needs."""
    fed = ("input_ids", "attention_mask", "scored_positions")
    for kind, tensors, needed in (
        ("inputs", session.get_inputs(), (*fed, *body.past_key_names, *body.past_value_names)),
        ("outputs", session.get_outputs(), (*outputs, *body.present_key_names, *body.present_value_names)),
    ):
        names = {tensor.name for tensor in tensors}
        if missing := [name for name in needed if name not in names]:
            raise BundleError(
                f"{graph} does not have the {kind} that the manifest names.",
                found=", ".join(sorted(names)),
                expected=", ".join(missing),
                hint="export the bundle again",
            )
