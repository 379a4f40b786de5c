"""``flashhead-edge eval``: how faithful a bundle's head is to the dense head, as a table or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flashhead_edge.export.sources import ModelSource
    from flashhead_edge.export.states import HiddenStates
    from flashhead_edge.progress import Progress

_FILE = click.Path(path_type=Path)
_COLUMNS = ("positions", "containment", "agreement", "dense_int8_agreement", "dense_int4_agreement")
_TITLES = ("positions", "containment", "agreement", "dense int8", "dense int4")


@click.command("eval", short_help="Compare a bundle's head with the dense head.")
@click.argument("bundle", type=_FILE)
@click.argument("more_text", nargs=-1, type=_FILE, metavar="[FILE]...")
@click.option("--text", multiple=True, type=_FILE, help="Text that the model reads; more files may follow.")
@click.option("--continue", "prompts", type=_FILE, help="Beginnings, one a line, that the model continues greedily.")
@click.option("--hidden", type=_FILE, help="Hidden states in a .safetensors file, instead of text.")
@click.option("--model", help="The exported model (folder, .gguf, Hub id): makes states of text, and is the truth.")
@click.option("--max-tokens", type=int, default=512, show_default=True, help="Tokens read of a passage.")
@click.option("--new-tokens", type=int, default=64, show_default=True, help="Tokens written after a beginning.")
@click.option("--limit", type=int, help="Use at most this many states, evenly spread.")
@click.option("--save-hidden", type=_FILE, help="Write the states to a .safetensors file for --hidden.")
@click.option("--no-dense", is_flag=True, help="Do not run dense heads in int8 and int4.")
@click.option("--threads", type=int, help="Threads of ONNX Runtime.  [default: one a physical core]")
@click.option("--device", default="cpu", show_default=True, help="Where the model computes: cpu or cuda.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files; starts faster.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
def eval_command(
    bundle: Path,
    more_text: tuple[Path, ...],
    text: tuple[Path, ...],
    prompts: Path | None,
    hidden: Path | None,
    model: str | None,
    max_tokens: int,
    new_tokens: int,
    limit: int | None,
    save_hidden: Path | None,
    no_dense: bool,
    threads: int | None,
    device: str,
    offline: bool,
    no_verify: bool,
    as_json: bool,
) -> None:
    """Compare a bundle's head with the dense float32 head, and dense heads in int8 and int4 with it too.

    BUNDLE is a folder made by export. The states come from text (--text FILE..., a domain each, passages parted by
    lines of ---), from beginnings that the model continues (--continue), or from a file (--hidden).
    """
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.cli.progress import StageProgress
    from flashhead_edge.errors import OptionError
    from flashhead_edge.export.evaluate import evaluate_bundle
    from flashhead_edge.export.sources import resolve_source
    from flashhead_edge.export.state_files import load_states, save_states

    if more_text and not text:
        raise click.UsageError(f"Got unexpected extra argument ({more_text[0]})")
    texts = (*text, *more_text)
    _check_choices(texts, prompts, hidden, model)
    for name, value in (("--max-tokens", max_tokens), ("--new-tokens", new_tokens), ("--limit", limit)):
        if value is not None and value < 1:
            raise OptionError(f"{name} is out of range.", found=value, expected="1 or more")
    opened = Bundle.open(bundle, verify=not no_verify)
    source = None if model is None else resolve_source(model, offline=offline)
    with StageProgress() as progress:
        if hidden is not None:
            states = load_states(hidden)
        else:
            assert source is not None  # _check_choices has seen to it
            states = _states_of_text(source, texts, prompts, max_tokens, new_tokens, device, progress)
        if save_hidden is not None:
            save_states(states, save_hidden)
        states = _limited(states, limit)
        result = evaluate_bundle(
            opened, states, source=source, dense=not no_dense, threads=threads, progress=progress
        ).as_dict()
    click.echo(json.dumps(result, indent=2, ensure_ascii=False) if as_json else _table(result))


def _check_choices(texts: tuple[Path, ...], prompts: Path | None, hidden: Path | None, model: str | None) -> None:
    """Exactly one kind of states, and a model where text needs one."""
    from flashhead_edge.errors import OptionError

    has_text = bool(texts) or prompts is not None
    if has_text == (hidden is not None):
        raise OptionError(
            "Evaluation needs either text or hidden states.",
            found="both" if has_text else "neither",
            expected="--text FILE... or --continue FILE with --model, or --hidden FILE.safetensors",
        )
    if has_text and model is None:
        raise OptionError(
            "Text is no use without the model that reads it.",
            found="no --model",
            expected="--model with the folder, .gguf file or Hub id that the bundle was exported from",
            hint="or give hidden states: --hidden FILE.safetensors",
        )


def _states_of_text(
    source: ModelSource,
    texts: tuple[Path, ...],
    prompts: Path | None,
    max_tokens: int,
    new_tokens: int,
    device: str,
    progress: Progress,
) -> HiddenStates:
    """Load the model, let it read and write, and let go of it."""
    from flashhead_edge.export.evaluation_states import evaluation_states
    from flashhead_edge.export.models import load_model

    def load() -> tuple[Any, Any]:
        progress("loading the model", 0, 1)
        loaded = load_model(source, device=device)
        progress("loading the model", 1, 1)
        return loaded

    return evaluation_states(load, texts, prompts, max_tokens=max_tokens, new_tokens=new_tokens, progress=progress)


def _limited(states: HiddenStates, limit: int | None) -> HiddenStates:
    """At most ``limit`` states, evenly spread."""
    import numpy as np

    if limit is None or limit >= len(states):
        return states
    return states.select(np.arange(limit) * len(states) // limit)


def _table(result: dict[str, Any]) -> str:
    """Domains and their total as a table, and what there is in sum."""
    rows = [*result["per_domain"].items(), ("all", result)]
    width = max(len("domain"), *(len(name) for name, _ in rows))
    lines = ["  ".join(("domain".ljust(width), *(title.rjust(11) for title in _TITLES)))]
    for name, entry in rows:
        shares = ("-" if entry[key] is None else f"{entry[key]:.2%}" for key in _COLUMNS[1:])
        lines.append("  ".join((name.ljust(width), *(cell.rjust(11) for cell in (str(entry["positions"]), *shares)))))
    lines += [
        "",
        f"regret           {result['regret_mean']:.5f}  (mean logit lost by the token chosen)",
        f"KL               {result['kl_mean']:.5f}  (mean, nats, dense || two-stage)",
        f"total variation  {result['total_variation_mean']:.5f}  (mean)",
    ]
    if result["perplexity_dense"] is not None:
        lines.append(f"perplexity       {result['perplexity_two_stage']:.4f}  (dense {result['perplexity_dense']:.4f})")
    return "\n".join(lines)
