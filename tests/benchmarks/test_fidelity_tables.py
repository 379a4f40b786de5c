from __future__ import annotations

from benchmarks import fidelity_tables

FIGURES = {
    "positions": 4000,
    "agreement": 0.991,
    "containment": 0.9925,
    "dense_int8_agreement": 0.981,
    "dense_int4_agreement": 0.775,
}
FIDELITY = {
    "models": [{"model": "smollm2", "reduction": 9.52, "teacher_forced": FIGURES, "own_continuations": FIGURES}],
}


def test_both_kinds_of_states_have_a_row():
    assert fidelity_tables.agreement(FIDELITY).splitlines()[2:] == [
        f"| smollm2 | 9.52 | {states} | 4000 | 0.9925 | 0.9910 | 0.9810 | 0.7750 |"
        for states in ("teacher forced", "own continuations")
    ]
