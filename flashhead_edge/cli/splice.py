"""``flashhead-edge splice``: the two-stage head into a graph of another exporter."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click


@click.command("splice", short_help="Put a bundle's head into a TensorRT Edge-LLM export.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
def splice_command(model: Path, bundle: Path, output: Path, force: bool, as_json: bool) -> None:
    """Put a bundle's head into a TensorRT Edge-LLM export.

    MODEL is model.onnx in the folder llm that the exporter of TensorRT Edge-LLM wrote; BUNDLE was exported from the
    same checkpoint with --target tensorrt. The output is a copy of that folder with the two-stage head in place of the
    dense one. Not tested on a device.
    """
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.export.edge_llm import splice_head

    spliced = splice_head(model, Bundle.open(bundle), output, force=force)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(spliced), "model": str(spliced.model)}, indent=2))
        return
    click.echo(f"Wrote {spliced.model}.")
    click.echo(
        f"  {spliced.rows_scored} of {spliced.vocab_size} rows scored ({spliced.reduction:.1f} x fewer); "
        "not tested on a device"
    )
