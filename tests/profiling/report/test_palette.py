"""Contrast of both schemes, by the formulas of WCAG 2.2."""

from __future__ import annotations

import pytest

from flashhead_edge.profiling.record import STAGES
from flashhead_edge.profiling.report.palette import DARK, LIGHT, STAGE_ROLES

TEXT = ("text", "muted", "accent", "warning")


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("behind", ["page", "card"])
def test_texts_and_bars_can_be_seen(scheme: dict[str, str], behind: str) -> None:
    low = {role for role in TEXT if contrast(scheme[role], scheme[behind]) < 4.5}
    low |= {role for role in STAGE_ROLES.values() if contrast(scheme[role], scheme[behind]) < 3}
    assert not low


def test_every_stage_has_its_own_color_in_both() -> None:
    assert set(STAGE_ROLES) == set(STAGES)
    assert LIGHT.keys() == DARK.keys()
    for scheme in (LIGHT, DARK):
        assert len({scheme[role] for role in STAGE_ROLES.values()}) == len(STAGES)
