"""The command line: one click group, one file per command."""
