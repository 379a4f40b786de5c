"""Taking a profile: plain and profiled steps in turn, and what the machine did meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout, native
from flashhead_edge._version import __version__
from flashhead_edge.bench.load import LoadMeter, is_heavy
from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.export.native_graph import NUM_RESCORED
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.platforms.detection import detect
from flashhead_edge.platforms.energy import open_energy_meter
from flashhead_edge.platforms.matching import match_platform
from flashhead_edge.profiling import record
from flashhead_edge.profiling.costs import Cost, bound_of, cache_bytes, rank_of, stage_costs
from flashhead_edge.profiling.machine import clock_mhz, machine_of
from flashhead_edge.profiling.memory_run import memory_over_time
from flashhead_edge.profiling.model_facts import model_of
from flashhead_edge.profiling.onnxruntime_trace import read_runs
from flashhead_edge.profiling.options import ProfileOptions
from flashhead_edge.profiling.steps import SETTLING, StepTimes, TimedDecoder, TimedGenerator, positions_of, take_steps
from flashhead_edge.progress import Progress, no_progress
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.runtimes.selector import device_facts, select
from flashhead_edge.runtimes.session import CPU_PROVIDER

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

_Float64 = npt.NDArray[np.float64]
_GRAPH_OF_HEAD = {"two-stage": "decode", "dense": "dense"}
_PROFILER = "onnxruntime profiler"
#: Said where the head was slowed down so much in profiled steps that nothing of a plain one is left for the body.
BODY_UNKNOWN = "The head took longer in profiled steps than whole plain ones did: the body's time is not known."
_PHASES = (record.CENTROIDS, record.TOP_K, record.GATHER_DOT)


def take_profile(bundle: Bundle, options: ProfileOptions, progress: Progress = no_progress) -> record.Profile:
    """Profile a bundle on this machine, on ONNX Runtime's CPU provider.

    Args:
        bundle: A bundle with a body.
        options: What to profile.
        progress: Told of rounds.

    Returns:
        The profile.

    Raises:
        BundleError: The bundle has no body, or not the graph of the head.
        OptionError: The steps do not fit the model's context.
        OptionalDependencyError: ONNX Runtime is not installed, or for series onnx.
        ProfileError: A process that was needed ended early.
    """
    body = bundle.manifest.body
    if body is None:
        raise BundleError(
            "The bundle has no body, and a decode step needs the whole model.",
            found="a bundle with a head alone",
            hint="export the model again without --no-body",
        )
    if positions_of(options.tokens) > body.max_positions:
        raise OptionError(
            "The steps do not fit the model's context.",
            found=f"{options.tokens} tokens, which need {positions_of(options.tokens)} positions",
            expected=f"at most {body.max_positions} positions",
            hint="measure fewer tokens",
        )
    run = _Run(bundle, options)
    run.measure(progress)
    peak, samples = memory_over_time(bundle.path, head=options.head, threads=options.threads, steps=options.tokens)
    points: tuple[record.HeadPoint, ...] = ()
    if options.scaling:
        from flashhead_edge.profiling.head_series import head_series

        points = head_series(bundle, run.generator, threads=options.threads, progress=progress)
    memory = record.Memory(
        weights_bytes=sum(item.bytes for name, item in bundle.manifest.files.items() if name.endswith(".data")),
        cache_bytes=cache_bytes(body, batch=1, positions=run.positions),
        peak_rss_bytes=peak,
        samples=samples,
    )
    return run.profile(memory, points)


class _Run:
    """The measurement of one head."""

    def __init__(self, bundle: Bundle, options: ProfileOptions) -> None:
        self._bundle, self._options = bundle, options
        self.generator = TimedGenerator(bundle, head=options.head, threads=options.threads)
        self._graph = choose_graph(bundle, _GRAPH_OF_HEAD[options.head])
        self._is_native = self._graph.name.endswith(layout.NATIVE_SUFFIX)
        self._plain: list[StepTimes] = []
        self._profiled: list[StepTimes] = []
        self._joules = 0.0
        self._clock: float | None = None
        self._load = LoadMeter()

    def measure(self, progress: Progress) -> None:
        """Take all rounds."""
        options, body = self._options, self._bundle.manifest.body
        assert body is not None
        per_round = [len(part) for part in np.array_split(np.arange(options.tokens), options.rounds)]
        meter = open_energy_meter()
        self.energy_source = meter.source if meter else None
        with tempfile.TemporaryDirectory(prefix="flashhead-profile-") as folder:
            profiled = TimedDecoder(self._graph, body, threads=options.threads, profile=Path(folder) / "session")
            stage = f"profiling, {options.head} head"
            progress(stage, 0, options.rounds)
            for number, steps in enumerate(per_round):
                before = meter.joules() if meter else 0.0
                self._plain.append(self._take(self.generator.timed_decoder, steps))
                self._joules += meter.joules() - before if meter else 0.0
                self._clock = clock_mhz()
                self._profiled.append(self._take(profiled, steps))
                progress(stage, number + 1, options.rounds)
            runs = read_runs(profiled.end_profile(), head=options.head)
        if meter:
            meter.close()
        self._nodes = _counted(runs, per_round)
        self.positions = int(np.median(StepTimes.joined(self._plain).positions))

    def _take(self, decoder: TimedDecoder, steps: int) -> StepTimes:
        return take_steps(self.generator, decoder, steps, native_head=self._is_native)

    def profile(self, memory: record.Memory, points: tuple[record.HeadPoint, ...]) -> record.Profile:
        """What came of it."""
        import onnxruntime

        other_load = self._load.other_load()
        plain, profiled = StepTimes.joined(self._plain), StepTimes.joined(self._profiled)
        facts = detect(try_providers=False)
        match = match_platform(facts)
        kernels = native.kernels() if self._is_native else None
        platform = find_platform(match.name) if match.name else None
        machine = machine_of(facts, platform, threads=self._options.threads, native_kernels=kernels)
        machine = replace(machine, clock_mhz=self._clock)
        step_ms = float(np.median(plain.step))
        stages, notes = self._stages(plain, machine)
        chosen = select(device_facts(), "text", graphs=frozenset(self._bundle.manifest.graphs)).candidate
        if chosen.provider != CPU_PROVIDER:
            notes += (f"generate takes {chosen.name} here by itself; this is ONNX Runtime's CPU provider.",)
        if is_heavy(other_load):
            notes += (f"Other programs kept {other_load:.1f} cores busy meanwhile: the times cannot be relied on.",)
        tokens = self._options.tokens + self._options.rounds * SETTLING
        return record.Profile(
            platform=match.name,
            measured=True,
            stages=stages,
            memory=memory,
            energy_j_per_token=self._joules / tokens if self.energy_source else None,
            step_ms=step_ms,
            model=model_of(self._bundle, self._options.head),
            machine=machine,
            created_by=f"flashhead-edge {__version__}",
            runtime=f"onnxruntime {onnxruntime.__version__}",
            threads=self._options.threads,
            positions=self.positions,
            steps=len(plain.step),
            energy_source=self.energy_source,
            overhead=record.Overhead(step_ms, float(np.median(profiled.step))),
            other_load=other_load,
            taken_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            head_points=points,
            notes=notes,
        )

    def _stages(self, plain: StepTimes, machine: record.Machine) -> tuple[tuple[record.Stage, ...], tuple[str, ...]]:
        """Stages of a step, and what must be said of them."""
        seen = {name: (_PROFILER, times) for name, times in self._nodes.items() if name in record.HEAD_STAGES}
        if plain.phases is not None:
            if self._options.head == "dense":
                phases = {record.DENSE_HEAD: plain.phases.sum(axis=1)}
            else:
                phases = {name: plain.phases[:, i] for i, name in enumerate(_PHASES)}
            seen |= {name: ("clock in the operator", times) for name, times in phases.items()}
        head = sum(times if plain.phases is not None else np.median(times) for _, times in seen.values())
        body = plain.run - head
        seen[record.BODY] = ("clock around ONNX Runtime, without the head", np.maximum(body, 0.0))
        seen[record.SAMPLING] = ("clock", plain.choice)
        seen[record.HOST] = ("clock", plain.model - plain.run)
        costs = stage_costs(
            self._bundle.manifest,
            head=self._options.head,
            batch=1,
            positions=self.positions,
            greedy=self._is_native,
            rescored=NUM_RESCORED,
            rank=rank_of(self._bundle),
        )
        stages = tuple(_stage(name, *seen[name], costs.get(name), machine) for name in record.STAGES if name in seen)
        nodes = float(np.median(self._nodes[record.BODY]))
        notes = [f"In profiled steps, ONNX Runtime's profiler saw {nodes:.3f} ms in the nodes of the body."]
        if np.median(body) <= 0:
            notes.append(BODY_UNKNOWN)
        return stages, tuple(notes)


def _counted(runs: list[dict[str, float]], per_round: Sequence[int]) -> dict[str, _Float64]:
    """Times of the steps that counted, by stage; a round's runs are its prompt, those that settle, and its steps."""
    kept: list[dict[str, float]] = []
    place = 0
    for steps in per_round:
        place += 1 + SETTLING
        kept += runs[place : place + steps]
        place += steps
    names = {name for run in kept for name in run}
    return {name: np.array([run.get(name, 0.0) for run in kept]) for name in names}


def _stage(name: str, source: str, times: _Float64, cost: Cost | None, machine: record.Machine) -> record.Stage:
    low, middle, high = (float(value) for value in np.percentile(times, (10, 50, 90)))
    bound = bound_of(cost, machine.bandwidth_gb_s, machine.operations_g_s) if cost else None
    return record.Stage(
        name,
        middle,
        cost.bytes if cost else None,
        cost.operations if cost else None,
        bound,
        low,
        high,
        source,
    )
