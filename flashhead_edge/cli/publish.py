"""``flashhead-edge publish``: a folder for vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("publish", short_help="Write a folder that vLLM serves.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder with the model's weights.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--copy", is_flag=True, help="Copy the weights instead of linking them.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
def publish_command(bundle: Path, model: Path, output: Path, copy: bool, force: bool, as_json: bool) -> None:
    """Write a folder that vLLM serves, with our plugin.

    BUNDLE was exported from the model in --model, whose files the output shares.
    """
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.export.publish import publish

    published = publish(Bundle.open(bundle), model, output, copy=copy, force=force)
    if as_json:
        click.echo(json.dumps({"folder": str(published.folder), "architecture": published.architecture}, indent=2))
        return
    click.echo(f"Wrote {published.folder} ({published.architecture}).")
    click.echo(f"Serve it with: vllm serve {published.folder}")
