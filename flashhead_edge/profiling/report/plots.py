"""The plots of a report. Each is drawn for a width and a scheme of colours; what was not measured is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from flashhead_edge.profiling import record
from flashhead_edge.profiling.record import HeadPoint, Stage
from flashhead_edge.profiling.report.content import Content, label_of
from flashhead_edge.profiling.report.palette import STAGE_ROLES, Color
from flashhead_edge.profiling.report.scales import scale_of, short
from flashhead_edge.profiling.report.svg import Canvas, fitted, text_width
from flashhead_edge.profiling.report.xy_plot import Axes, Series, xy_plot

Plot = Callable[[Content, float, Color], "Canvas | None"]
_BAR, _ROW, _LINE = 24, 54, 18


def breakdown(content: Content, width: float, color: Color) -> Canvas:
    """A bar a profile, parted into stages."""
    profiles = content.profiles
    names = [name for name in record.STAGES if any(profile.stage(name) for profile in profiles)]
    rows = _legend_rows(names, width)
    top = _LINE * len(rows) + 14
    words = [f"{label_of(p, profiles)}: {_in_words(p.stages)}" for p in profiles]
    canvas = Canvas(width, top + _ROW * len(profiles) + 24, "Time of a decode step", ". ".join(words), color)
    for number, row in enumerate(rows):
        for x, name in row:
            canvas.rect(x, 3 + _LINE * number, 11, 11, STAGE_ROLES[name])
            canvas.text(x + 16, 13 + _LINE * number, name)
    scale = scale_of([sum(s.ms for s in p.stages) for p in profiles], 0, width - 66, zero=True, margin=0.0)
    for tick in scale.ticks(5):
        canvas.line(scale(tick), top, scale(tick), canvas.height - 20, "grid")
        anchor = "middle" if tick else "start"
        canvas.text(scale(tick), canvas.height - 6, f"{short(tick)} ms", anchor=anchor, size=11)
    for number, profile in enumerate(profiles):
        y = top + _ROW * number
        label = ("" if profile.measured else "predicted: ") + label_of(profile, profiles)
        canvas.text(0, y + 14, fitted(label, width, 12.5), role="text", bold=True)
        x = 0.0
        for stage in profile.stages:
            end = x + stage.ms
            tip = f"{stage.name}: {stage.ms:.3f} ms"
            gap = 1 if scale(end) - scale(x) > 3 else 0
            role = STAGE_ROLES[stage.name]
            canvas.rect(
                scale(x), y + 20, scale(end) - scale(x) - gap, _BAR, role, tip=tip, hatched=not profile.measured
            )
            x = end
        canvas.text(scale(x) + 6, y + 37, f"{profile.step_ms:.2f} ms", role="text")
    return canvas


def stage_times(content: Content, width: float, color: Color) -> Canvas:
    """The stages of the main profile, each with its spread."""
    stages = content.main.stages
    greatest = max(max(stage.ms, stage.ms_p90 or 0) for stage in stages)
    canvas = _bars("Stages of a step", _in_words(stages), len(stages), width, color)
    scale = scale_of([greatest], _label_width(stages), width - 64, zero=True, margin=0.0)
    for number, stage in enumerate(stages):
        y = 4 + 34 * number
        role = STAGE_ROLES[stage.name]
        canvas.text(0, y + 16, stage.name, role="text")
        hatched = not content.main.measured
        canvas.rect(scale(0), y + 3, scale(stage.ms) - scale(0), 20, role, tip=_tip(stage), hatched=hatched)
        end = stage.ms
        if stage.ms_p10 is not None and stage.ms_p90 is not None:
            canvas.line(scale(stage.ms_p10), y + 13, scale(stage.ms_p90), y + 13, "text", width=1.5)
            for edge in (stage.ms_p10, stage.ms_p90):
                canvas.line(scale(edge), y + 9, scale(edge), y + 17, "text", width=1.5)
            end = max(end, stage.ms_p90)
        canvas.text(scale(end) + 6, y + 17, f"{stage.ms:.3f} ms", role="text", size=11)
    return canvas


def bandwidth(content: Content, width: float, color: Color) -> Canvas | None:
    """Bytes a second of the stages that read weights, beside the memory's peak."""
    profile = content.main
    reached = [(stage, stage.bandwidth_gb_s) for stage in profile.stages]
    shown = [(stage, value) for stage, value in reached if value is not None]
    peak = profile.machine.bandwidth_gb_s
    if not shown:
        return None
    words = "; ".join(f"{stage.name}: {value:.1f} GB/s" for stage, value in shown)
    words += f"; peak of the memory: {peak:.1f} GB/s" if peak else ""
    canvas = _bars("Bytes read a second, by stage", words, len(shown), width, color, extra=26 if peak else 0)
    stages = [stage for stage, _ in shown]
    values = [value for _, value in shown] + ([peak] if peak else [])
    scale = scale_of(values, _label_width(stages), width - 70, zero=True, margin=0.0)
    if peak:
        bottom = 4 + 34 * len(shown)
        canvas.line(scale(peak), 0, scale(peak), bottom, "text", width=1.5, dash="3 3")
        canvas.text(scale(peak) + 4, bottom + 14, f"memory {peak:.1f} GB/s", role="text", anchor="end", size=11)
    for number, (stage, value) in enumerate(shown):
        y = 4 + 34 * number
        canvas.text(0, y + 16, stage.name, role="text")
        canvas.rect(scale(0), y + 3, scale(value) - scale(0), 20, STAGE_ROLES[stage.name], hatched=not profile.measured)
        canvas.text(scale(value) + 6, y + 17, f"{value:.1f} GB/s", role="text", size=11)
    return canvas


def pareto(content: Content, width: float, color: Color) -> Canvas | None:
    """Agreement against milliseconds of the head: more to the left and higher up is better."""
    series = []
    for measured in (True, False):
        points = [point for point in content.points("probes", measured=measured) if point.agreement is not None]
        if points:
            role = STAGE_ROLES[record.GATHER_DOT]
            values = tuple((point.head_ms, float(point.agreement or 0)) for point in points)
            labels = _sparse(tuple(f"P {point.num_probes}" for point in points)) if measured else ()
            series.append(Series("two-stage, by probes P", values, role, not measured, labels=labels))
    for profile in content.profiles:
        if profile.model.head == "dense" and profile.model.agreement is not None:
            value = (profile.head_ms, profile.model.agreement)
            role = STAGE_ROLES[record.DENSE_HEAD]
            series.append(Series("", (value,), role, not profile.measured, joined=False, labels=("dense",)))
    for row in content.single:
        if row.head.startswith("dense") and row.head_ms_p50 and row.head_ms_p50 > 0 and row.agreement is not None:
            value = (row.head_ms_p50, row.agreement)
            role = STAGE_ROLES[record.DENSE_HEAD]
            series.append(Series("", (value,), role, joined=False, labels=(row.head,)))
    if not series:
        return None
    axes = Axes("milliseconds of the head", "agreement with the dense head", x_log=True, y_most=1.0)
    return xy_plot("Agreement against time", series, axes, width=width, color=color, height=300)


def probes(content: Content, width: float, color: Color) -> Canvas | None:
    """Time of the head against P."""
    return _scaling(content, "probes", "probes P", width, color)


def batch(content: Content, width: float, color: Color) -> Canvas | None:
    """Time of the head against B."""
    return _scaling(content, "batch", "batch B", width, color)


def clusters(content: Content, width: float, color: Color) -> Canvas | None:
    """Time of the head against K."""
    return _scaling(content, "clusters", "clusters K, of the same vocabulary", width, color)


def vocabulary(content: Content, width: float, color: Color) -> Canvas | None:
    """Time of the head against V."""
    return _scaling(content, "vocabulary", "vocabulary V, of the same cluster size", width, color)


def speeds(content: Content, width: float, color: Color) -> Canvas | None:
    """Tokens a second with different heads over one body, as ``bench`` measured them."""
    rows = sorted(content.single, key=lambda row: -row.tokens_per_second_p50)
    if not rows:
        return None
    words = "; ".join(f"{row.head}: {row.tokens_per_second_p50:.0f} tokens/s" for row in rows)
    canvas = _bars("Tokens a second, by head", words, len(rows), width, color)
    start = max(text_width(row.head) for row in rows) + 12
    scale = scale_of([row.tokens_per_second_max for row in rows], start, width - 40, zero=True, margin=0.0)
    for number, row in enumerate(rows):
        y = 4 + 34 * number
        role = "gather-dot" if row.head.startswith("two-stage") else "dense-head" if "dense" in row.head else "host"
        canvas.text(0, y + 16, row.head, role="text")
        middle = row.tokens_per_second_p50
        canvas.rect(scale(0), y + 3, scale(middle) - scale(0), 20, role, tip=f"{row.runtime}, {row.test}")
        low, high = scale(row.tokens_per_second_min), scale(row.tokens_per_second_max)
        canvas.line(low, y + 13, high, y + 13, "text", width=1.5)
        canvas.text(high + 6, y + 17, f"{middle:.0f}", role="text", size=11)
    return canvas


def memory(content: Content, width: float, color: Color) -> Canvas | None:
    """Resident memory over time."""
    samples = content.main.memory.samples
    if len(samples) < 2:
        return None
    points = tuple((sample.seconds, sample.rss_bytes / 1e6) for sample in samples)
    axes = Axes("seconds", "MB resident", y_zero=True)
    return xy_plot("Memory over time", [Series("", points, filled=True)], axes, width=width, color=color, height=220)


#: All plots, by the name of their files.
PLOTS: Mapping[str, Plot] = {
    "breakdown": breakdown,
    "stages": stage_times,
    "pareto": pareto,
    "speeds": speeds,
    "bandwidth": bandwidth,
    "memory": memory,
    "scaling-probes": probes,
    "scaling-batch": batch,
    "scaling-clusters": clusters,
    "scaling-vocabulary": vocabulary,
}


def _scaling(
    content: Content,
    varied: Literal["probes", "batch", "clusters", "vocabulary"],
    name: str,
    width: float,
    color: Color,
) -> Canvas | None:
    series: list[Series] = []
    ticks: set[float] = set()
    for measured in (True, False):
        points: Sequence[HeadPoint] = content.points(varied, measured=measured)
        if points:
            values = tuple((float(point.value), point.head_ms) for point in points)
            series.append(Series("", values, "accent", not measured))
            ticks |= {x for x, _ in values}
    if not series:
        return None
    if len(series) > 1:
        series = [Series("head alone", s.points, s.role, s.predicted) for s in series]
    kept = _apart(sorted(ticks), most=int(width / 55))
    axes = Axes(name, "milliseconds", x_log=True, y_log=True, x_ticks=tuple(kept))
    return xy_plot(f"Head alone against {name}", series, axes, width=width, color=color, height=220)


def _apart(ticks: list[float], most: int) -> list[float]:
    """Ticks of a logarithmic axis, without those too near to the one before."""
    least = (ticks[-1] / ticks[0]) ** (1 / max(1, most))
    kept = ticks[:1]
    for tick in ticks[1:]:
        if tick / kept[-1] >= least:
            kept.append(tick)
    return kept


def _sparse(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Every other label, the last one included."""
    last = len(labels) - 1
    return tuple(label if (last - i) % 2 == 0 else "" for i, label in enumerate(labels))


def _bars(title: str, words: str, count: int, width: float, color: Color, *, extra: float = 0) -> Canvas:
    return Canvas(width, 8 + 34 * count + extra, title, words, color)


def _label_width(stages: Sequence[Stage]) -> float:
    return max(text_width(stage.name) for stage in stages) + 10


def _legend_rows(names: Sequence[str], width: float) -> list[list[tuple[float, str]]]:
    """Entries of a legend with their places, as many a row as fit."""
    rows: list[list[tuple[float, str]]] = []
    x = width
    for name in names:
        needed = 32 + text_width(name)
        if x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, name))
        x += needed
    return rows


def _in_words(stages: Sequence[Stage]) -> str:
    return "; ".join(f"{stage.name}: {stage.ms:.3f} ms" for stage in stages)


def _tip(stage: Stage) -> str:
    spread = "" if stage.ms_p10 is None else f", 10th to 90th percentile {stage.ms_p10:.3f} to {stage.ms_p90:.3f} ms"
    return f"{stage.name}: {stage.ms:.3f} ms{spread}"
