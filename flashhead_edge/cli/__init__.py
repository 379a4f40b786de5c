"""The command line: one click group, one file per command."""

from flashhead_edge.cli.group import main

__all__ = ["main"]
