from __future__ import annotations

from dataclasses import replace

from benchmarks import profile_tables
from tests.profiling.profiles import MEASURED

DENSE = replace(MEASURED, model=replace(MEASURED.model, head="dense"), overhead=None, other_load=0.4)


def test_every_stage_and_the_step_have_a_row_for_each_head():
    lines = profile_tables.stages("smollm2", [MEASURED, DENSE]).splitlines()
    assert lines[0].startswith(
        "smollm2, 2 threads of Some CPU, 72 positions; memory 20.0 GB/s (stream test, 2 threads)"
    )
    assert lines[0].endswith("0.40 cores busy.")
    rows = lines[4:]
    assert len(rows) == 2 * (len(MEASURED.stages) + 1)
    assert rows[0] == "| two-stage | body | 3.000 | 2.900 to 3.400 | 75.6 % | 60.0 | 20.0 | bandwidth |"
    assert rows[4] == "| two-stage | sampling | 0.020 | - | 0.5 % | - | - | - |"
    assert rows[6] == "| two-stage | step | 3.900 | profiled: 4.10 | - | - | - | - |"
    assert rows[-1] == "| dense | step | 3.900 | - | - | - | - | - |"


def test_every_plot_that_pages_show_is_drawn():
    assert list(profile_tables.drawings([MEASURED, DENSE])) == list(profile_tables.SHOWN)
