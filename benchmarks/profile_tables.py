"""Tables and plots of what ``flashhead-edge profile`` measured."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.markdown import markdown
from flashhead_edge.profiling.record import Profile
from flashhead_edge.profiling.report.content import Content
from flashhead_edge.profiling.report.palette import LIGHT, fixed
from flashhead_edge.profiling.report.plots import PLOTS

#: The plots that pages show, and their words for who does not see them.
SHOWN = {"breakdown": "Time of a decode step", "pareto": "Agreement against time"}
PLOT_WIDTH = 516


def stages(model: str, profiles: Sequence[Profile]) -> str:
    """The stages of a step of a model, a profile for each head."""
    first = profiles[0]
    where = (
        f"{model}, {first.threads} threads of {first.machine.processor}, {first.positions} positions; memory "
        f"{first.machine.bandwidth_gb_s:.1f} GB/s ({first.machine.bandwidth_source}); other programs kept "
        f"{max(profile.other_load or 0 for profile in profiles):.2f} cores busy."
    )
    titles = ("head", "stage", "ms", "10th to 90th percentile", "share", "MB read", "GB/s", "bound")
    return f"{where}\n\n{markdown(titles, [row for profile in profiles for row in _rows(profile)])}"


def drawings(profiles: Sequence[Profile]) -> dict[str, str]:
    """SVG images of the plots that can be drawn, by name."""
    content = Content(tuple(profiles))
    canvases = {name: PLOTS[name](content, PLOT_WIDTH, fixed(LIGHT)) for name in SHOWN}
    return {name: canvas.render(background="card") for name, canvas in canvases.items() if canvas is not None}


def _rows(profile: Profile) -> list[tuple[str, ...]]:
    head, total = profile.model.head, sum(stage.ms for stage in profile.stages)
    rows: list[tuple[str, ...]] = []
    for stage in profile.stages:
        spread = "-" if stage.ms_p10 is None else f"{stage.ms_p10:.3f} to {stage.ms_p90:.3f}"
        read_mb = "-" if stage.bytes is None else f"{stage.bytes / 1e6:.1f}"
        reached = "-" if stage.bandwidth_gb_s is None else f"{stage.bandwidth_gb_s:.1f}"
        share = f"{100 * stage.ms / total:.1f} %"
        rows.append((head, stage.name, f"{stage.ms:.3f}", spread, share, read_mb, reached, stage.bound or "-"))
    cost = "-" if profile.overhead is None else f"profiled: {profile.overhead.profiled_ms:.2f}"
    return [*rows, (head, "step", f"{profile.step_ms:.3f}", cost, "-", "-", "-", "-")]
