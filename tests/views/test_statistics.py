from __future__ import annotations

from rich.console import Console

from errata.edits import EditStatistics, statistics
from errata.types import Correction
from errata.views import statistics_to_terminal

ROWS = [
    Correction(
        id="a", prompt="", original="it opens at nine.", edited="Here in Berlin it opens at ten.", reasons=("wrong",)
    ),
    Correction(id="b", prompt="", original="It opens at nine.", edited="It opens [bold]at\x1b[31m\u202e nine."),
    Correction(id="c", prompt="", original="It is good.", edited="It is good."),
]


def printed(found: EditStatistics) -> str:
    console = Console(width=100, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(statistics_to_terminal(found))
    return capture.get()


def test_everything_is_shown() -> None:
    shown = printed(statistics(ROWS))
    assert "3 corrections: 1 unchanged, that is already good (33.3%)" in shown
    for part in (
        "mixed",
        "kept",
        "substitutes",
        "0.5 to 0.6",
        "after the end",
        "nine → ten",
        "wrong",
        "could not have",
    ):
        assert part in shown
    assert "a: name Berlin" in shown
    assert "≈" not in shown
    assert "≈ 1 the same" in printed(statistics([*ROWS, ROWS[2]]))


def test_text_is_hostile() -> None:
    shown = printed(statistics(ROWS))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold]at␛[31m" in shown  # no markup


def test_bars_are_as_long_as_counts() -> None:
    rows = [*ROWS, *(Correction(id="x", prompt=str(k), original="a b", edited="a") for k in range(8))]
    bars = {
        line.split("  ")[0].strip(): line.count("█") for line in printed(statistics(rows)).splitlines() if "█" in line
    }
    assert bars["delete only"] == 40
    assert bars["unchanged"] == 5


def test_one_line_where_it_is_printed_as_it_is() -> None:
    console = Console(width=1000)
    with console.capture() as capture:
        console.print(statistics(ROWS), highlight=False)
    assert capture.get() == f"{statistics(ROWS)}\n"


def test_no_rows() -> None:
    assert "0 corrections" in printed(statistics([]))
