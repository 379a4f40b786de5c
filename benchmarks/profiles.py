"""Profiles of a bundle's two-stage and dense head: ``python -m benchmarks.profiles BUNDLE NAME``.

Writes ``results/profile-NAME.json`` (two-stage, with series of the head alone) and ``results/profile-NAME-dense.json``,
which ``flashhead-edge profile --diff`` and ``--from`` read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flashhead_edge import Bundle
from flashhead_edge.files import write_text
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.profiling.formats import format_profile
from flashhead_edge.profiling.options import ProfileOptions
from flashhead_edge.profiling.profiler import take_profile

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("name", help="part of the names of the files, such as gemma3-270m")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=host_facts().logical_cores)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    for head, suffix in (("two-stage", ""), ("dense", "-dense")):
        options = ProfileOptions(head, arguments.tokens, arguments.threads, scaling=head == "two-stage")
        profile = take_profile(bundle, options)
        write_text(RESULTS / f"profile-{arguments.name}{suffix}.json", profile.to_json())
        sys.stdout.write(format_profile(profile) + "\n")


if __name__ == "__main__":
    main()
