"""Profiles and their differences as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flashhead_edge.profiling.compare import ProfileDifference
from flashhead_edge.profiling.record import Machine, Profile, Stage

_NONE = "-"


def format_profile(profile: Profile) -> str:
    """Write a profile.

    Args:
        profile: Measured or predicted.

    Returns:
        Text that ends in a line break.
    """
    model, machine = profile.model, profile.machine
    kind = "measured" if profile.measured else "PREDICTED, not measured"
    lines = [
        f"{model.name}, {model.head} head, {profile.platform or 'no platform of the catalogue'}: {kind}",
        _machine_line(machine),
        "",
    ]
    titles = ("stage", "ms", "p10 - p90", "share", "MB read", "GB/s", "of peak", "bound")
    total = sum(stage.ms for stage in profile.stages)
    rows = [_stage_row(stage, total, machine.bandwidth_gb_s) for stage in profile.stages]
    lines += table(titles, rows)
    lines += ["", f"step      {profile.step_ms:.3f} ms, {profile.tokens_per_second:.1f} tokens/s; {_taken(profile)}"]
    lines.append(f"head      {profile.head_ms:.3f} ms, {100 * profile.head_share:.1f} % of a step")
    if profile.overhead is not None:
        over = profile.overhead
        lines.append(
            f"profiling {over.profiled_ms:.3f} ms a profiled step, {100 * (over.ratio - 1):+.1f} %: "
            "what ONNX Runtime's profiler saw is of these steps"
        )
    lines.append(f"memory    {_memory(profile)}")
    if profile.energy_j_per_token is None:
        lines.append(f"energy    {'not measured: no counter can be read' if profile.measured else 'not predicted'}")
    else:
        lines.append(f"energy    {profile.energy_j_per_token:.4f} J a token ({profile.energy_source})")
    for point in profile.head_points:
        agreement = "" if point.agreement is None else f", agreement {point.agreement:.4f}"
        lines.append(f"{point.varied:<10}{point.value:>8}: head alone {point.head_ms:.3f} ms{agreement}")
    lines += [f"note: {note}" for note in profile.notes]
    return "\n".join(lines) + "\n"


def format_difference(first: str, second: str, difference: ProfileDifference) -> str:
    """Write a difference.

    Args:
        first: Name of the first profile.
        second: Name of the second.
        difference: What differs.

    Returns:
        Text that ends in a line break.
    """
    lines = [f"{second} compared with {first}; a ratio above 1 is slower", ""]
    rows = [
        (stage.name, number(stage.first_ms, ".3f"), number(stage.second_ms, ".3f"), number(stage.ratio, ".2f"))
        for stage in difference.stages
    ]
    lines += table(("stage", "ms", "ms", "ratio"), rows)
    if difference.energy_ratio is not None:
        lines.append(f"energy a token, ratio: {difference.energy_ratio:.2f}")
    if difference.peak_rss_ratio is not None:
        lines.append(f"peak memory, ratio: {difference.peak_rss_ratio:.2f}")
    if difference.circumstances:
        lines += ["", "These differ too, so that the ratios are not of the software alone:"]
        lines += [f"  {name}: {ours} / {theirs}" for name, (ours, theirs) in difference.circumstances.items()]
    return "\n".join(lines) + "\n"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    cells = [tuple(titles), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def number(value: float | None, form: str) -> str:
    """A number, or a dash."""
    return _NONE if value is None else format(value, form)


def _stage_row(stage: Stage, total: float, peak: float | None) -> tuple[str, ...]:
    spread = None if stage.ms_p10 is None or stage.ms_p90 is None else f"{stage.ms_p10:.3f} - {stage.ms_p90:.3f}"
    achieved = stage.bandwidth_gb_s
    return (
        stage.name,
        f"{stage.ms:.3f}",
        spread or _NONE,
        f"{100 * stage.ms / total:.1f} %",
        number(None if stage.bytes is None else stage.bytes / 1e6, ".2f"),
        number(achieved, ".1f"),
        _NONE if achieved is None or not peak else f"{100 * achieved / peak:.0f} %",
        stage.bound or _NONE,
    )


def _machine_line(machine: Machine) -> str:
    parts = [machine.processor]
    if machine.cores:
        parts.append(f"{machine.cores} cores")
    if machine.clock_mhz:
        parts.append(f"{machine.clock_mhz:.0f} MHz")
    parts += [text for text in (machine.governor, machine.power_mode) if text]
    if machine.bandwidth_gb_s:
        parts.append(f"memory {machine.bandwidth_gb_s:.1f} GB/s ({machine.bandwidth_source})")
    return ", ".join(parts)


def _taken(profile: Profile) -> str:
    if not profile.measured:
        error = profile.relative_error
        return "predicted" if error is None else f"predicted, may be off by {100 * error:.0f} %"
    return f"{profile.steps} steps at {profile.positions} positions, {profile.threads} threads, {profile.runtime}"


def _memory(profile: Profile) -> str:
    memory = profile.memory
    parts = [
        f"{name} {value / 1e6:.0f} MB"
        for name, value in (
            ("peak resident", memory.peak_rss_bytes),
            ("weights", memory.weights_bytes),
            ("cache", memory.cache_bytes),
        )
        if value is not None
    ]
    return ", ".join(parts)
