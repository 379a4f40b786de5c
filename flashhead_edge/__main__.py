"""``python -m flashhead_edge`` is the ``flashhead-edge`` command."""

from flashhead_edge.cli import main

main(prog_name="flashhead-edge")
