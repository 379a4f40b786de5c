"""The ``flashhead-edge`` command: its sub-commands, errors and exit codes."""

from __future__ import annotations

import importlib
import sys
import traceback
from dataclasses import dataclass
from typing import IO, Any

import click

from flashhead_edge._version import __version__
from flashhead_edge.errors import FlashHeadError, did_you_mean
from flashhead_edge.logs import FORMATS, LEVELS, configure

_INTERRUPTED = 130


@dataclass(frozen=True)
class CommandEntry:
    """Where a command lives and what the overview says about it.

    Attributes:
        target: ``module:attribute`` of the click command, imported when the command is used.
        summary: First line of its help, so that the overview needs no import.
    """

    target: str
    summary: str


COMMANDS = {
    "export": CommandEntry("flashhead_edge.cli.export:export_command", "Turn a model into a bundle."),
    "generate": CommandEntry("flashhead_edge.cli.generate:generate_command", "Generate text from a bundle."),
    "eval": CommandEntry("flashhead_edge.cli.eval:eval_command", "Compare a bundle's head with the dense head."),
    "bench": CommandEntry("flashhead_edge.cli.bench:bench_command", "Measure speed against dense heads and others."),
    "build": CommandEntry("flashhead_edge.cli.build:build_command", "Build a TensorRT engine of a bundle."),
    "profile": CommandEntry("flashhead_edge.cli.profile:profile_command", "Show where the time of a step goes."),
    "predict": CommandEntry("flashhead_edge.cli.predict:predict_command", "Predict a decode step on other platforms."),
    "publish": CommandEntry("flashhead_edge.cli.publish:publish_command", "Write a folder that vLLM serves."),
    "inspect": CommandEntry("flashhead_edge.cli.inspect:inspect_command", "Show what a bundle holds."),
    "splice": CommandEntry(
        "flashhead_edge.cli.splice:splice_command", "Put a bundle's head into a TensorRT Edge-LLM export."
    ),
    "platforms": CommandEntry("flashhead_edge.cli.platforms:platforms_command", "Show the platforms that are known."),
    "runtimes": CommandEntry(
        "flashhead_edge.cli.runtimes:runtimes_command", "Show which runtime is chosen here, and why."
    ),
    "doctor": CommandEntry(
        "flashhead_edge.cli.doctor:doctor_command", "Look at this device and say what to install on it."
    ),
}


class CommandError(click.ClickException):
    """One of our errors on its way to stderr; carries its exit code."""

    def __init__(self, error: FlashHeadError | OSError) -> None:
        super().__init__(str(error))
        self.exit_code: int = error.exit_code if isinstance(error, FlashHeadError) else 1  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        click.echo(f"Error: {self.message}", file=file, err=file is None)


class LazyGroup(click.Group):
    """A group that imports a command when it is used, and turns errors into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which ones there are."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"There is no command {name!r}. {did_you_mean(name, COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; expected errors end in a message, bugs in a traceback."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly: whoever read our output has seen enough
        except (FlashHeadError, OSError) as error:
            if ctx.params.get("verbose"):
                traceback.print_exc(file=sys.stderr)
            raise CommandError(error) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(_INTERRUPTED)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="flashhead-edge", prog_name="flashhead-edge")
@click.option("-v", "--verbose", is_flag=True, help="Show timings, and tracebacks of errors.")
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="warning", show_default=True, help="Least that is logged."
)
@click.option("--log-format", type=click.Choice(FORMATS), default="text", show_default=True, help="On standard error.")
def main(verbose: bool, log_level: str, log_format: str) -> None:
    """A two-stage LM head for small language models: export it, run it, measure it.

    Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    del verbose  # commands and error handling read it from the context
    configure(log_level, log_format)
