"""Series of the native head alone: its time against probes, batch, clusters and vocabulary.

One operator reads the bundle's own table where it is mapped. Fewer clusters of the same vocabulary are neighbours
joined, a smaller vocabulary is the first clusters of the table: that changes what is found, so only the series of
probes has an agreement, but not what is read and computed.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from flashhead_edge import native
from flashhead_edge.bench.turns import PROMPTS
from flashhead_edge.errors import OptionalDependencyError, ProfileError
from flashhead_edge.generator import Generator
from flashhead_edge.profiling.fed_head import FedHead, FedTables
from flashhead_edge.profiling.record import HeadPoint
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

_Float32 = npt.NDArray[np.float32]
#: States that agreement is measured on, of texts that the bundle writes.
_STATES = 512
_BATCHES = (1, 2, 4, 8, 16, 32)
#: Parts of P, V and K that the series take.
_PROBE_PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 2, 2)
_PARTS = (1 / 8, 1 / 4, 1 / 2, 1)
#: All configurations in turn, so that what the machine does meets all of them alike.
_ROUNDS, _REPEATS = 4, 10
#: Beyond the last cache of most processors.
_FLUSH_BYTES = 64 << 20
_Varied = Literal["probes", "batch", "clusters", "vocabulary"]


def head_series(
    bundle: Bundle, generator: Generator, *, threads: int, progress: Progress = no_progress
) -> tuple[HeadPoint, ...]:
    """Measure all series.

    Args:
        bundle: An opened bundle.
        generator: Of the bundle; writes the texts whose states agreement is measured on.
        threads: Threads of the operator.
        progress: Told of rounds.

    Returns:
        The points, series by series.

    Raises:
        OptionalDependencyError: onnx is not installed.
        ProfileError: The native library cannot be used, or the head has a bias, which the series leave out.
    """
    if find_spec("onnx") is None:
        raise OptionalDependencyError("onnx", "report", "Measuring series of the head")
    if (reason := native.unavailable_because()) is not None:
        raise ProfileError("Series of the head need the native library.", found=reason, hint="profile without them")
    if bundle.manifest.has_bias:
        raise ProfileError("Series of a head with a bias are not measured.", hint="profile without them")
    index, facts = bundle.index(), bundle.manifest.index
    tables = FedTables.from_bundle(bundle, index)
    states = _states(generator)
    dense = dense_tokens(tables, states)
    probes = facts.num_probes
    configurations: list[tuple[_Varied, FedTables, int, int]] = []
    for part in _PROBE_PARTS:
        configurations.append(("probes", tables, min(facts.num_clusters, max(1, round(probes * part))), 1))
    configurations += [("batch", tables, probes, batch) for batch in _BATCHES]
    for part in _PARTS:
        count = max(1, round(facts.num_clusters * part))
        configurations.append(("vocabulary", tables.first(count), min(probes, count), 1))
    for join in (8, 4, 2, 1):
        joined = tables.joined(join)
        configurations.append(("clusters", joined, max(1, min(probes // join, len(joined.bias))), 1))
    heads = [FedHead(part_tables, opened, threads=threads) for _, part_tables, opened, _ in configurations]
    agreements = [
        float(np.mean(head.tokens(states) == dense)) if varied == "probes" else None
        for head, (varied, *_) in zip(heads, configurations, strict=True)
    ]
    flush = np.zeros(_FLUSH_BYTES, np.uint8)
    seconds: list[list[float]] = [[] for _ in heads]
    for number in range(_ROUNDS):
        for times, head, (_, _, _, batch) in zip(seconds, heads, configurations, strict=True):
            times += head.seconds(states, batch, _REPEATS, flush)
        progress("measuring the head alone", number + 1, _ROUNDS)
    return tuple(
        HeadPoint(
            varied=varied,
            batch=batch,
            vocab_size=min(bundle.manifest.vocab_size, part_tables.token_order.size),
            num_clusters=len(part_tables.bias),
            num_probes=opened,
            head_ms=float(np.median(times)) * 1e3,
            agreement=agreement,
        )
        for (varied, part_tables, opened, batch), times, agreement in zip(
            configurations, seconds, agreements, strict=True
        )
    )


def _states(generator: Generator) -> _Float32:
    """Hidden states [N, H] of texts that the bundle writes greedily, one a position."""
    decoder = generator.decoder
    states = []
    for prompt in PROMPTS:
        fed = np.array([generator.tokenizer.encode(prompt)], np.int64)
        steps = min(_STATES // len(PROMPTS), decoder.body.max_positions - fed.shape[1])
        decoder.reset(positions=fed.shape[1] + steps)
        for _ in range(steps):
            output = decoder.step(fed, greedy=True)
            states.append(output.hidden_states[0].copy())
            fed = output.head.token_ids[:, None]
    return np.stack(states)


def dense_tokens(tables: FedTables, states: _Float32) -> npt.NDArray[np.int64]:
    """The token of the greatest product with any row, [N] int64; scale and soft-cap are monotone."""
    best = np.full(len(states), -np.inf, np.float32)
    tokens = np.zeros(len(states), np.int64)
    clusters, size, width = tables.table.shape
    at_once = max(1, (1 << 24) // (size * width))
    for start in range(0, clusters, at_once):
        rows = tables.table.clusters(slice(start, start + at_once)).reshape(-1, width)
        order = tables.token_order[start : start + at_once].reshape(-1)
        products = np.where(order < 0, np.float32(-np.inf), states @ rows.T)
        place = products.argmax(axis=1)
        found = products[np.arange(len(states)), place]
        tokens = np.where(found > best, order[place], tokens)
        best = np.maximum(best, found)
    return tokens
