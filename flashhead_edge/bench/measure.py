"""Heads and other programs in turn, round by round, so that what the machine does meets all of them alike."""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge import native
from flashhead_edge._version import __version__
from flashhead_edge.bench.competitors import Outcome, run_competitor
from flashhead_edge.bench.heads import BODY_ALONE, decoding_graphs, form_of
from flashhead_edge.bench.load import LoadMeter, is_heavy
from flashhead_edge.bench.options import BenchOptions, BenchRow, Test
from flashhead_edge.bench.turns import PROMPTS, Turn, agreement_with, greedy_text, take_turn
from flashhead_edge.memory import peak_rss_bytes
from flashhead_edge.platforms.energy import EnergyMeter, open_energy_meter
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.platforms.nvidia import nvidia_facts
from flashhead_edge.progress import Progress, no_progress
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.tokenizer import Tokenizer

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.manifest import BodyRecord

_Int64 = npt.NDArray[np.int64]
#: What agreement is measured on: so many tokens after each prompt.
_TEXT_TOKENS = 64


def run_bench(bundle: Bundle, options: BenchOptions, progress: Progress = no_progress) -> list[BenchRow]:
    """Measure a bundle.

    Args:
        bundle: A bundle with a body.
        options: What to measure.
        progress: Told of rounds.

    Returns:
        Rows in the order of threads, tests, heads, then other programs.

    Raises:
        BundleError: The bundle has no body.
        OptionalDependencyError: A package that a head or program needs is not installed.
        RuntimeUnavailableError: Another program failed.
    """
    encode = Tokenizer(bundle.path).encode
    prompts = [np.array([encode(text)], np.int64) for text in PROMPTS]
    rows: list[BenchRow] = []
    with decoding_graphs(bundle, options.heads, options.providers) as graphs:
        for threads in options.threads:
            rows += _Bench(bundle, options, graphs, prompts, threads).run(progress)
    return rows


class _Bench:
    """The measurement with one number of threads."""

    def __init__(
        self, bundle: Bundle, options: BenchOptions, graphs: dict[str, Path], prompts: list[_Int64], threads: int
    ) -> None:
        body = bundle.manifest.body
        assert body is not None
        self._bundle, self._options, self._threads = bundle, options, threads
        self._graphs = {head: path for head, path in graphs.items() if head != BODY_ALONE}
        self._prompts, self._body = prompts, body
        self._cpu_model, self._gpu = host_facts().cpu_model, _gpu_of(options)
        self._ids = [int(token) for prompt in prompts for token in prompt[0]]
        self._decoders = {head: self._decoder(path) for head, path in self._graphs.items()}
        self._alone = graphs.get(BODY_ALONE)
        if self._alone is not None:
            self._decoders[BODY_ALONE] = self._decoder(self._alone, "hidden_states")
        self._turns: dict[tuple[Test, str], list[Turn]] = defaultdict(list)
        self._joules: dict[tuple[Test, str], float] = defaultdict(float)
        self._outcomes: dict[str, list[Outcome]] = defaultdict(list)

    def _decoder(self, graph: Path, fetched: str = "token_ids") -> Decoder:
        """A decoder that fetches one output only."""
        providers = self._options.providers
        return Decoder(graph, self._body, threads=self._threads, providers=providers, outputs=(fetched,))

    def run(self, progress: Progress) -> list[BenchRow]:
        """Measure all rounds."""
        agreement = self._agreement()
        peaks = {head: self._peak(path) for head, path in self._graphs.items()}
        for decoder in self._decoders.values():  # a session's first run allocates
            take_turn(decoder, Test("tg", 2), self._ids)
        meter, load = open_energy_meter(gpu=self._options.device == "cuda"), LoadMeter()
        stage = f"measuring, threads {self._threads}"
        progress(stage, 0, self._options.rounds)
        for number in range(self._options.rounds):
            self._round(number, meter)
            progress(stage, number + 1, self._options.rounds)
        other = load.other_load()
        if meter is not None:
            meter.close()
        return self._rows(agreement, peaks, None if meter is None else meter.source, other)

    def _round(self, number: int, meter: EnergyMeter | None) -> None:
        """Let everyone have its turn, each round beginning with another."""
        names = list(self._decoders)
        first = number % len(names)
        for test in self._options.tests:
            for name in names[first:] + names[:first]:
                before = meter.joules() if meter else 0.0
                self._turns[test, name].append(take_turn(self._decoders[name], test, self._ids))
                self._joules[test, name] += meter.joules() - before if meter else 0.0
        single = [test for test in self._options.tests if test.batch == 1]
        for competitor in self._options.against if single else ():
            outcome = run_competitor(competitor, single, threads=self._threads, gguf=self._options.gguf)
            self._outcomes[competitor.name].append(outcome)

    def _agreement(self) -> dict[str, float]:
        """Agreement of every head with the bundle's own dense head; empty where it has none."""
        if "dense" not in self._bundle.manifest.graphs:
            return {}
        dense = self._decoder(choose_graph(self._bundle, "dense", self._options.providers))
        count = min(_TEXT_TOKENS, self._body.max_positions - max(prompt.shape[1] for prompt in self._prompts))
        texts = [greedy_text(dense, prompt, count) for prompt in self._prompts]
        return {
            name: agreement_with(decoder, self._prompts, texts)
            for name, decoder in self._decoders.items()
            if name != BODY_ALONE
        }

    def _peak(self, graph: Path) -> int:
        """Peak resident memory of a fresh process that does the largest test."""
        largest = max(self._options.tests, key=lambda test: test.tokens * test.batch)
        context = multiprocessing.get_context("spawn")
        receive, send = context.Pipe(duplex=False)
        arguments = (graph, self._body, largest, self._ids, self._threads, self._options.providers, send)
        process = context.Process(target=_decode_and_report, args=arguments)
        process.start()
        send.close()
        try:
            return int(receive.recv())
        finally:
            process.join()

    def _rows(
        self, agreement: dict[str, float], peaks: dict[str, int], energy: str | None, other_load: float
    ) -> list[BenchRow]:
        """What came of it."""
        import onnxruntime

        rows = []
        baseline = self._baseline()
        for test in self._options.tests:
            against = np.array([turn.tokens_per_second for turn in self._turns[test, baseline]])
            for head in self._graphs:
                turns = self._turns[test, head]
                speeds = np.array([turn.tokens_per_second for turn in turns])
                row = self._row(test, head, f"onnxruntime {onnxruntime.__version__}", speeds, against, other_load)
                tokens = sum(turn.tokens for turn in turns)
                row = replace(
                    row,
                    peak_rss_bytes=peaks[head],
                    agreement=agreement.get(head),
                    energy_j_per_token=self._joules[test, head] / tokens if energy else None,
                    energy_source=energy,
                )
                rows.append(_with_step_times(row, turns, self._body_turns(test, head)) if test.kind == "tg" else row)
            for name, outcomes in self._outcomes.items() if test.batch == 1 else ():
                speeds = np.array([outcome.tokens_per_second[test.name] for outcome in outcomes])
                row = self._row(test, name, outcomes[0].runtime, speeds, against, other_load)
                rows.append(replace(row, peak_rss_bytes=outcomes[0].peak_rss_bytes))
        return rows

    def _body_turns(self, test: Test, head: str) -> list[Turn] | None:
        """Turns of the body that a head's graph has; None where that was not measured."""
        if self._alone is None or form_of(self._alone) != form_of(self._graphs[head]):
            return None
        return self._turns[test, BODY_ALONE]

    def _row(
        self,
        test: Test,
        head: str,
        runtime: str,
        speeds: npt.NDArray[np.float64],
        against: npt.NDArray[np.float64],
        other_load: float,
    ) -> BenchRow:
        """What every row says."""
        return BenchRow(
            model=self._bundle.manifest.source.name,
            test=test.name,
            head=head,
            runtime=runtime,
            batch=test.batch,
            threads=self._threads,
            tokens_per_second_p50=float(np.median(speeds)),
            tokens_per_second_min=float(speeds.min()),
            tokens_per_second_max=float(speeds.max()),
            ratio_p50=float(np.median(speeds / against)),
            baseline=self._baseline(),
            rounds=len(speeds),
            other_load=other_load,
            heavy_load=is_heavy(other_load),
            cpu_model=self._cpu_model,
            native_kernels=native.kernels() if native.is_available() else None,
            version=__version__,
            gpu=self._gpu,
        )

    def _baseline(self) -> str:
        """The dense head that people ship, where it is measured; else the last head."""
        heads = list(self._graphs)
        return next((head for head in ("dense-int8", "dense-fp32") if head in heads), heads[-1])


def _gpu_of(options: BenchOptions) -> str | None:
    """Name of the GPU that decodes, the first one; None for the processor."""
    if options.device == "cpu":
        return None
    gpus = nvidia_facts().gpus
    return gpus[0].name if gpus else "unknown"


def _with_step_times(row: BenchRow, turns: Sequence[Turn], body: Sequence[Turn] | None) -> BenchRow:
    """Add percentiles of steps in milliseconds, and what the head adds to the body's in the same round."""
    low, middle, high = (float(np.percentile([t.seconds for t in turns], percent)) * 1e3 for percent in (10, 50, 90))
    added = None
    if body is not None:
        pairs = zip(turns, body, strict=True)
        added = float(np.median([np.median(turn.seconds) - np.median(alone.seconds) for turn, alone in pairs])) * 1e3
    return replace(row, step_ms_p10=low, step_ms_p50=middle, step_ms_p90=high, head_ms_p50=added)


def _decode_and_report(
    graph: Path, body: BodyRecord, test: Test, ids: list[int], threads: int, providers: Sequence[str], send: Connection
) -> None:
    """Run one test and say how much memory it took; in a process of its own."""
    take_turn(Decoder(graph, body, threads=threads, providers=providers, outputs=("token_ids",)), test, ids)
    send.send(peak_rss_bytes())
