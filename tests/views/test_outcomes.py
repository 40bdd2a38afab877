from __future__ import annotations

import re

import pytest

from errata.views import outcomes_svg


def test_the_bar_is_as_long_as_the_shares() -> None:
    drawn = outcomes_svg(50, 25, 20, 5)
    parts = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="2.5" width="([\d.]+)"', drawn)
    assert [(name, float(x), float(width)) for name, x, width in parts] == [
        ("win", 0, 100),
        ("even", 100, 50),
        ("loss", 150, 40),
        ("void", 190, 10),
    ]
    assert re.findall(r">(\d+)</text>", drawn) == ["50", "25", "20"]  # 5 does not fit
    assert 'aria-label="50 won, 25 tied, 20 lost, 5 invalid"' in drawn


def test_what_is_not_there_is_not_drawn() -> None:
    drawn = outcomes_svg(3, 0, 0)
    assert drawn.count("<rect") == 1
    assert 'aria-label="3 won, 0 tied, 0 lost"' in drawn


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, -1, 2)])
def test_numbers_of_verdicts(counts) -> None:
    with pytest.raises(ValueError, match="numbers of verdicts"):
        outcomes_svg(*counts)
