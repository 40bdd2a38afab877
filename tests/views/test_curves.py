from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from errata.views import Curve, curves_legend, curves_svg

finite = st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-12)


def draw(*curves: Curve, **settings: object) -> str:
    return str(curves_svg(curves, title="t", x_label="x", y_label="y", **settings))  # type: ignore[arg-type]


def routes(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each drawn line, in the drawing's units."""
    return [
        [(float(x), float(y)) for x, y in (point.split() for point in path[1:].split("L"))]
        for path in re.findall(r'class="curve" d="([^"]*)"', svg)
    ]


def test_points_stand_where_the_ticks_say() -> None:
    svg = draw(Curve("one", [0, 5, 10], [0, 1, 4]), width=480, height=300)
    across = {text: float(x) for x, text in re.findall(r'<text x="([\d.]+)" y="275" text-anchor="middle">(\d+)<', svg)}
    up = {text: float(y) - 4 for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', svg)}
    (line,) = routes(svg)
    assert line == [
        (pytest.approx(across["0"]), pytest.approx(up["0"])),
        (pytest.approx((across["4"] + across["6"]) / 2, abs=0.1), pytest.approx(up["1"], abs=0.1)),
        (pytest.approx(across["10"]), pytest.approx(up["4"])),
    ]
    assert across["0"] < across["10"]
    assert up["0"] > up["4"]


def test_a_missing_number_interrupts_the_line() -> None:
    svg = draw(Curve("one", [0, 1, 2, 3, None, 5], [0, 1, None, 3, 4, 5]))
    assert [len(line) for line in routes(svg)] == [2, 1, 1]
    assert svg.count("<circle") == 2


def test_points_are_joined_in_their_order() -> None:
    (line,) = routes(draw(Curve("kl", [0, 4, 2], [0, 1, 2])))
    assert [x for x, _ in sorted(line, key=lambda point: -point[1])] == [x for x, _ in line]
    assert line[1][0] > line[2][0]


def test_each_curve_has_a_hue_and_a_dash_of_its_own() -> None:
    curves = [Curve(f"c{index}", [0, 1], [index, index + 1]) for index in range(12)]
    looks = re.findall(r'class="curve" [^>]*style="([^"]*)"', draw(*curves))
    assert len(set(looks)) == 12
    first = [re.search("dasharray:(.*)", look) for look in looks[:6]]
    assert len({match.group(1) for match in first if match}) == 6


def test_an_empty_curve_keeps_its_place() -> None:
    names = [Curve("a", [], []), Curve("b", [0, 1], [0, 1])]
    second = re.findall(r'class="curve" [^>]*style="([^"]*)"', draw(*names))
    assert second[0] in str(curves_legend(["a", "b"])).split("</svg>")[1]


def test_legend_names_more_than_one() -> None:
    two = [Curve("first one", [0, 1], [0, 1]), Curve("second", [0, 1], [1, 0])]
    assert "first one" in draw(*two)
    assert "first one" not in draw(two[0])
    assert "first one" not in draw(*two, legend=False)
    many = [Curve("a rather long name " * 2, [0, 1], [0, 1])] * 4
    rows = re.findall(r'x="36.0" y="(\d+)"', draw(*many))
    assert len(set(rows)) == 4


def test_nothing_to_draw() -> None:
    assert "nothing to draw" in draw()
    assert "nothing to draw" in draw(Curve("a", [None], [1.0]))


def test_hostile_names_are_escaped() -> None:
    name = "</svg><script>x()</script>\u202e\"'&"
    svg = str(curves_svg([Curve(name, [0], [0]), Curve("b", [], [])], title=name, x_label=name, y_label=name))
    for markup in (svg, str(curves_legend([name]))):
        root = ElementTree.fromstring(markup)
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        assert str(escape("</svg><script>")) in markup
        assert "\u202e" not in markup


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"curve 'a' has the point .* at 1"):
        draw(Curve("a", [0, 1], [0, float("nan")]))
    with pytest.raises(ValueError, match="curve 'a' has 2 xs and 1 ys"):
        draw(Curve("a", [0, 1], [0]))


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=6))
def test_every_point_lies_in_the_drawing(points: list[tuple[float, float]]) -> None:
    svg = draw(Curve("a", [x for x, _ in points], [y for _, y in points]), width=480, height=300)
    ElementTree.fromstring(svg)
    for x, y in routes(svg)[0]:
        assert 0 <= x <= 480
        assert 0 <= y <= 300
