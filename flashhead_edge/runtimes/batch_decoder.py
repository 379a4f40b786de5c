"""Texts of different lengths decoded side by side: each has a row of the cache, and comes and goes when it likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError
from flashhead_edge.runtimes.base import HeadOutput, StepOutput
from flashhead_edge.runtimes.session import bind_greedy, can_be_greedy

if TYPE_CHECKING:
    import onnxruntime

    from flashhead_edge.manifest import BodyRecord


class BatchDecoder:
    """A decoder for several texts; rows 0 to n - 1 of its cache are in use. Made by :meth:`Decoder.for_batch`.

    Past and present are the same buffers, as in :class:`~flashhead_edge.runtimes.decoder.KvCache`, so a row is read
    and written where it lies: a prompt is read into a view of its row, and a step sees the first n rows.

    Args:
        session: Runs the graph.
        body: Sizes and names of the cache, from the manifest.
        rows: Texts side by side at most.
        positions: Tokens that a text can have.
        dtype: Of keys and values.
        outputs: Outputs of :class:`StepOutput`, in order.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        body: BodyRecord,
        *,
        rows: int,
        positions: int,
        dtype: npt.DTypeLike,
        outputs: Sequence[str],
    ) -> None:
        if rows < 1:
            raise OptionError("A batch has at least one row.", found=rows)
        shape = (rows, body.num_kv_heads, positions, body.head_dim)
        past = (*body.past_key_names, *body.past_value_names)
        present = (*body.present_key_names, *body.present_value_names)
        self._buffers = [(*names, np.zeros(shape, dtype)) for names in zip(past, present, strict=True)]
        self._session = session
        self._can_be_greedy = can_be_greedy(session)
        self._outputs = tuple(outputs)
        self._lengths = np.zeros(rows, np.int64)
        self._bound: tuple[int, int] | None = None
        self._binding = session.io_binding()
        self._positions = positions

    @property
    def rows(self) -> int:
        """Texts side by side at most."""
        return len(self._lengths)

    def read(self, row: int, prompt_ids: Sequence[int], *, greedy: bool = False) -> StepOutput:
        """Begin a text: read its prompt into a row.

        Args:
            row: 0 to the number of rows less one; what the row held is forgotten.
            prompt_ids: The prompt.
            greedy: Whether only the greedy token matters, as for :meth:`Decoder.step`.

        Returns:
            What the head says of the prompt's last position, N = 1.

        Raises:
            OptionError: The prompt is longer than a row.
        """
        self._lengths[row] = 0
        return self._run(row, row + 1, np.array([prompt_ids], dtype=np.int64), greedy)

    def step(self, token_ids: Sequence[int], *, greedy: bool = False) -> StepOutput:
        """Feed one token to each of the first rows.

        Args:
            token_ids: The tokens chosen last, one for each text.
            greedy: As for :meth:`read`.

        Returns:
            What the head says of every text's next token, N = number of texts.

        Raises:
            OptionError: A text is longer than a row.
        """
        return self._run(0, len(token_ids), np.array(token_ids, dtype=np.int64)[:, None], greedy)

    def keep(self, sources: Sequence[int]) -> None:
        """Rearrange rows: afterwards row i holds what row ``sources[i]`` held.

        Args:
            sources: Rows in use; one may stand several times, as beams need it.
        """
        changed = [(i, source) for i, source in enumerate(sources) if i != source]
        if not changed:
            return
        targets, origins = (np.array(part) for part in zip(*changed, strict=True))
        used = int(self._lengths.max())
        for _, _, buffer in self._buffers:
            buffer[targets, :, :used] = buffer[origins, :, :used]
        self._lengths[targets] = self._lengths[origins]

    def _run(self, first: int, last: int, input_ids: npt.NDArray[np.int64], greedy: bool) -> StepOutput:
        """Feed ``input_ids`` [n, S] to some rows and score the last position of each."""
        lengths = self._lengths[first:last] + input_ids.shape[1]
        longest = int(lengths.max())
        if longest > self._positions:
            raise OptionError(
                "A text is longer than its row of the cache.", found=f"{longest} tokens", expected=self._positions
            )
        self._bind(first, last)
        mask = np.arange(longest) < lengths[:, None]
        last_place = np.full(len(input_ids), input_ids.shape[1] - 1)
        scored = np.stack([np.arange(len(input_ids)), last_place], axis=1)
        self._binding.bind_cpu_input("input_ids", input_ids)
        self._binding.bind_cpu_input("attention_mask", mask.astype(np.int64))
        self._binding.bind_cpu_input("scored_positions", scored)
        if self._can_be_greedy:
            bind_greedy(self._binding, greedy)
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")  # anew, so that earlier results are not overwritten
        self._session.run_with_iobinding(self._binding)
        self._lengths[first:last] = lengths
        values = self._binding.get_outputs_as_ortvaluevector()
        first_own = len(values) - len(self._outputs)
        *head, hidden = (values[first_own + i].numpy() for i in range(len(self._outputs)))
        return StepOutput(HeadOutput(*head), hidden)

    def _bind(self, first: int, last: int) -> None:
        """Bind views of some rows of the cache."""
        if self._bound == (first, last):
            return
        from onnxruntime import OrtValue

        # A new binding: names keep the order in which they were first bound, and the head's outputs must be last.
        self._binding = self._session.io_binding()
        for past, present, buffer in self._buffers:
            view = OrtValue.ortvalue_from_numpy(buffer[first:last])
            self._binding.bind_ortvalue_input(past, view)
            self._binding.bind_ortvalue_output(present, view)
        self._bound = (first, last)
