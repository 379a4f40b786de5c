"""The page: HTML with its style and plots inside, which loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from flashhead_edge.profiling.record import Profile
from flashhead_edge.profiling.report.content import Content, label_of
from flashhead_edge.profiling.report.palette import DARK, LIGHT, style, variable
from flashhead_edge.profiling.report.plots import PLOTS

#: Widths that plots are drawn for: a phone's, and that of a column on a larger screen.
NARROW, WIDE = 326, 516
_STYLE = """
:root{color-scheme:light dark;%(light)s}
@media (prefers-color-scheme:dark){:root{%(dark)s}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text)}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 16px 48px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0 0 2px}
p{margin:0}
.lead,.caption,footer{color:var(--muted)}
.caption{font-size:.875rem;margin-bottom:14px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:24px 0 16px}
.tile,section{background:var(--card);border:1px solid var(--grid);border-radius:12px;padding:16px}
.tile b{display:block;font-size:1.5rem;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.tile b.words{font-size:1.05rem;line-height:1.68}
.tile span{font-size:.8125rem;color:var(--muted)}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px}
section{min-width:0}
.all{grid-column:1/-1}
svg{display:block;max-width:100%%;height:auto}
.narrow{display:none}
.badge{display:inline-block;border-radius:999px;padding:1px 10px;font-size:.8125rem;font-weight:600;border:1.5px solid}
.measured{color:var(--accent);border-color:var(--accent)}
.predicted{color:var(--warning);border-color:var(--warning);border-style:dashed}
.warning{border-left:4px solid var(--warning);background:var(--card);padding:10px 14px;border-radius:8px;margin:12px 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%%;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);padding-bottom:8px}
th,td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
thead th{color:var(--muted);font-weight:600}
th:first-child,td:first-child{text-align:left;padding-left:0}
tr.predicted-row td,tr.predicted-row th{font-style:italic}
dl{display:grid;grid-template-columns:max-content 1fr;gap:6px 18px;margin:0;font-size:.9375rem}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
ul{margin:0;padding-left:18px}
footer{font-size:.8125rem;margin-top:24px}
@media (max-width:1000px){.grid{grid-template-columns:minmax(0,1fr)}}
@media (max-width:599px){
.wide{display:none}.narrow{display:block}
main{padding:18px 12px 32px}h1{font-size:1.3rem}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}.tile{padding:12px}.tile b{font-size:1.25rem}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}
}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""
_CAPTIONS = {
    "breakdown": ("Where a step goes", "One bar a profile, with the median of whole steps."),
    "stages": ("Stage by stage", "Medians; the thin line goes from the 10th to the 90th percentile."),
    "bandwidth": ("Bytes against the memory", "What a stage must read, by its time. Caches can beat the memory."),
    "pareto": ("Agreement against time", "Share of states with the dense head's token. Left and high is good."),
    "speeds": (
        "Against dense heads",
        "The same body with other heads, in turn; the line goes from slowest to fastest.",
    ),
    "scaling-probes": ("More probes", "The head alone; both axes are logarithmic."),
    "scaling-batch": ("Larger batches", "Clusters that several states open are read once."),
    "scaling-clusters": ("Finer clusters", "As many rows are opened; more centroids are scored."),
    "scaling-vocabulary": ("Larger vocabularies", "As many probes; only stage 1 grows."),
    "memory": ("Memory over time", "A fresh process that opens the bundle and generates; mapped files count."),
}


def render_page(content: Content) -> str:
    """Write the report.

    Args:
        content: What it shows.

    Returns:
        A document of HTML that needs no other file.
    """
    main = content.main
    title = f"{main.model.name}: profile of a decode step"
    cards = [_figure(name, content) for name in PLOTS if name != "breakdown"]
    body = [
        f"<h1>{escape(main.model.name)}</h1>",
        f'<p class="lead">{_badge(main)} {escape(_subtitle(main))}</p>',
        *(f'<p class="warning" role="note">{escape(text)}</p>' for text in content.warnings),
        f'<div class="tiles">{"".join(_tiles(main))}</div>',
        '<div class="grid">',
        _figure("breakdown", content),
        *cards[:1],
        _section("Stages in numbers", "", _stage_table(content), all_columns=True),
        *cards[1:],
        _section("The machine", "", _facts(_machine_facts(main))),
        _section("Model and head", "", _facts(_model_facts(main))),
        _section("How to read this", "", _notes(content), all_columns=True),
        "</div>",
        f"<footer>{escape(main.created_by)}{escape(', ' + main.taken_at if main.taken_at else '')}</footer>",
    ]
    sheet = _STYLE % {"light": style(LIGHT), "dark": style(DARK)}
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{sheet}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _figure(name: str, content: Content) -> str:
    """A plot in both widths, of which the style shows one."""
    heading, caption = _CAPTIONS[name]
    drawn = [PLOTS[name](content, width, variable) for width in (WIDE, NARROW)]
    images = [
        f'<div class="{kind}">{canvas.render()}</div>'
        for kind, canvas in zip(("wide", "narrow"), drawn, strict=True)
        if canvas is not None
    ]
    return _section(heading, caption, "".join(images)) if images else ""


def _section(heading: str, caption: str, inner: str, *, all_columns: bool = False) -> str:
    said = f'<p class="caption">{escape(caption)}</p>' if caption else '<p class="caption"></p>'
    kind = ' class="all"' if all_columns else ""
    return f"<section{kind}><h2>{escape(heading)}</h2>{said}{inner}</section>"


def _badge(profile: Profile) -> str:
    kind = "measured" if profile.measured else "predicted"
    return f'<span class="badge {kind}">{kind}</span>'


def _subtitle(profile: Profile) -> str:
    parts = [f"{profile.model.head} head on {profile.machine.processor}"]
    if profile.threads:
        parts.append(f"{profile.threads} threads")
    if profile.runtime:
        parts.append(profile.runtime)
    return ", ".join(parts)


def _tiles(profile: Profile) -> Iterable[str]:
    """The figures that matter most."""
    memory, energy, agreement = profile.memory.peak_rss_bytes, profile.energy_j_per_token, profile.model.agreement
    figures = [
        ("tokens a second", f"{profile.tokens_per_second:.0f}"),
        ("ms a step", f"{profile.step_ms:.2f}"),
        ("of a step is the head", f"{100 * profile.head_share:.1f} %"),
        ("agreement", "unknown" if agreement is None else f"{100 * agreement:.1f} %"),
        ("peak memory", "-" if memory is None else f"{memory / 1e6:.0f} MB"),
        ("energy a token", "not measured" if energy is None else f"{1e3 * energy:.1f} mJ"),
    ]
    return (_tile(name, value) for name, value in figures)


def _tile(name: str, value: str) -> str:
    kind = "" if value[0].isdigit() or value == "-" else ' class="words"'
    return f'<div class="tile"><b{kind}>{escape(value)}</b><span>{escape(name)}</span></div>'


def _stage_table(content: Content) -> str:
    """Every stage of every profile."""
    titles = ("stage", "ms", "share", "MB read", "GB/s", "of peak", "bound", "seen by")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    bodies = []
    for profile in content.profiles:
        total = sum(stage.ms for stage in profile.stages)
        kind = "" if profile.measured else ' class="predicted-row"'
        name = ("" if profile.measured else "predicted: ") + label_of(profile, content.profiles)
        rows = [f'<tr{kind}><th scope="rowgroup" colspan="{len(titles)}">{escape(name)}</th></tr>']
        for stage in profile.stages:
            reached, peak = stage.bandwidth_gb_s, profile.machine.bandwidth_gb_s
            cells = (
                f"{stage.ms:.3f}",
                f"{100 * stage.ms / total:.1f} %",
                "" if stage.bytes is None else f"{stage.bytes / 1e6:.2f}",
                "" if reached is None else f"{reached:.1f}",
                "" if reached is None or not peak else f"{100 * reached / peak:.0f} %",
                stage.bound or "",
                stage.source or "roofline",
            )
            inner = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            rows.append(f'<tr{kind}><th scope="row">{escape(stage.name)}</th>{inner}</tr>')
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    table = f"<table><thead><tr>{head}</tr></thead>{''.join(bodies)}</table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Stages in numbers">{table}</div>'


def _machine_facts(profile: Profile) -> Iterable[tuple[str, object]]:
    machine = profile.machine
    yield "platform", profile.platform or "none of the catalogue"
    yield "processor", machine.processor
    yield "cores", machine.cores
    yield "clock", None if machine.clock_mhz is None else f"{machine.clock_mhz:.0f} MHz"
    yield "governor", machine.governor
    yield "power mode", machine.power_mode
    yield "instructions", ", ".join(machine.isa_features)
    yield "memory", None if machine.memory_bytes is None else f"{machine.memory_bytes / 1e9:.1f} GB"
    yield "memory bandwidth", _peak(machine.bandwidth_gb_s, "GB/s", machine.bandwidth_source)
    yield "operations", _peak(machine.operations_g_s, "G/s", machine.operations_source)
    yield "native kernels", machine.native_kernels
    yield "system", machine.os
    yield "packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    load = profile.other_load
    yield "other load", None if load is None else f"{load:.2f} cores"


def _model_facts(profile: Profile) -> Iterable[tuple[str, object]]:
    model, memory = profile.model, profile.memory
    yield "vocabulary V", model.vocab_size
    yield "hidden size H", model.hidden_size
    yield "clusters K", model.num_clusters
    yield "cluster size C", model.cluster_size
    yield "probes P", model.num_probes
    yield "rows", model.head_precision
    yield "centroids", model.centroid_precision
    yield "body", model.body_precision
    yield "weights", None if memory.weights_bytes is None else f"{memory.weights_bytes / 1e6:.0f} MB"
    yield "cache", None if memory.cache_bytes is None else f"{memory.cache_bytes / 1e6:.1f} MB"
    yield "positions", profile.positions
    yield "steps", profile.steps or None
    over = profile.overhead
    yield "cost of profiling", None if over is None else f"{100 * (over.ratio - 1):+.1f} % a profiled step"


def _peak(value: float | None, unit: str, source: str | None) -> str | None:
    return None if value is None else f"{value:.1f} {unit} ({source})"


def _facts(facts: Iterable[tuple[str, object]]) -> str:
    known = [(name, value) for name, value in facts if value not in (None, "")]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(_said(value))}</dd>" for name, value in known)
    return f"<dl>{items}</dl>"


def _said(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _notes(content: Content) -> str:
    """Notes of all profiles, each once."""
    notes: Sequence[str] = list(dict.fromkeys(note for profile in content.profiles for note in profile.notes))
    if any(not profile.measured for profile in content.profiles):
        notes = [*notes, "Stripes, dashed lines, hollow marks and italics stand for predictions: nobody measured them."]
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else "<p>No notes.</p>"
