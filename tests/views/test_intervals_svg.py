from __future__ import annotations

import re

import pytest

from errata.views import interval_axis_svg, interval_svg


def parts(svg: str) -> tuple[str, float, float, float]:
    """The class, the drawn mean and the drawn ends."""
    name = re.search(r'class="forest (\w+)"', svg)
    mean = re.search(r'<circle cx="([\d.]+)"', svg)
    ends = re.search(r'class="interval" d="M([\d.]+) 10H([\d.]+)', svg)
    assert name
    assert mean
    assert ends
    return name[1], float(mean[1]), float(ends[1]), float(ends[2])


def test_places_and_sides() -> None:
    assert parts(interval_svg(0.75, 0.625, 0.875, reference=0.5)) == ("pos", 147.0, 123.5, 170.5)
    assert parts(interval_svg(0.25, 0.125, 0.375, reference=0.5)) == ("neg", 53.0, 29.5, 76.5)
    assert parts(interval_svg(0.5, 0.25, 1.0, reference=0.5)) == ("tie", 100.0, 53.0, 194.0)


def test_an_end_outside_is_open() -> None:
    inside, outside = interval_svg(0.9, 0.8, 1.0, reference=0.5), interval_svg(0.9, 0.7, 1.1, reference=0.5)
    assert (str(inside).count("v8"), str(outside).count("v8")) == (2, 1)
    assert parts(outside)[3] == 194.0


def test_the_axis_names_the_reference() -> None:
    assert re.findall(r">(\d+%)<", interval_axis_svg(0.5)) == ["0%", "50%", "100%"]


@pytest.mark.parametrize("numbers", [(0.5, 0.6, 0.7), (0.5, 0.4, 0.45), (float("nan"), 0.1, 0.2)])
def test_out_of_order_is_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="does not hold its mean"):
        interval_svg(*numbers, reference=0.5)
