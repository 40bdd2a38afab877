"""What was edited, as tables with bars for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from errata.edits import EditStatistics
from errata.views.pages import visible

__all__ = ["statistics_to_terminal"]

_BAR = 40  # characters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WORDS = 10  # of each list


def statistics_to_terminal(found: EditStatistics) -> RenderableType:
    """The statistics as a person reads them; an ``≈`` stands before what is an estimate."""
    parts: list[RenderableType] = [_summary(found), _kinds(found), _words(found)]
    if found.mechanical.rows:
        parts.append(Text(visible("\n".join(found.mechanical.lines()))))
    if found.rows > found.unchanged:
        parts += [_ratios(found), _positions(found), _most_changed(found)]
    if found.reasons:
        parts.append(_bars("edited for", list(found.reasons.items()), of=found.rows))
    if found.unknowable_rows:
        parts.append(_unknowable(found))
    return Group(*(Group(part, Text()) for part in parts))


def _summary(found: EditStatistics) -> Text:
    ratios, changes = found.edit_ratio_quantiles, found.length_change_quantiles
    lines = [
        f"{found.rows:,} corrections: {found.unchanged:,} unchanged, that is already good "
        f"({found.share_unchanged:.1%}); {_mark(found, 'same')}{found.same:,} the same as a row before, "
        f"{_mark(found, 'near_duplicates')}{found.near_duplicates:,} nearly",
        f"edit ratio of the rows that change a word: mean {found.mean_edit_ratio:.2f}, "
        f"{_mark(found, 'median_edit_ratio')}median {found.median_edit_ratio:.2f}, "
        f"{_mark(found, 'edit_ratio_quantiles')}{_quantiles(ratios, '.2f')}",
        f"words that a row gained: mean {found.mean_length_change:+.1f}, "
        f"{_mark(found, 'length_change_quantiles')}{_quantiles(changes, '+.0f')}",
    ]
    return Text("\n".join(lines))


def _quantiles(quantiles: object, form: str) -> str:
    assert isinstance(quantiles, dict)
    return ", ".join(f"{float(q):.0%}: {value:{form}}" for q, value in quantiles.items())


def _mark(found: EditStatistics, name: str) -> str:
    return "≈ " if name in found.estimated else ""


def _kinds(found: EditStatistics) -> Table:
    names = {
        "unchanged": "unchanged",
        "white_space": "white space only",
        "insert": "insert only",
        "delete": "delete only",
        "substitute": "substitute only",
        "mixed": "mixed",
    }
    return _bars("rows by kind of edit", [(names[kind], count) for kind, count in found.kinds.items()], of=found.rows)


def _words(found: EditStatistics) -> Table:
    original = [("kept", found.words_kept), ("deleted", found.words_deleted), ("substituted", found.words_substituted)]
    edited = [("kept", found.words_kept), ("inserted", found.words_inserted), ("substitutes", found.words_substituted)]
    both = Table.grid(padding=(0, 3))
    both.add_row(
        _bars(f"words of the originals, {found.words_original:,}", original, of=found.words_original, width=_BAR // 8),
        _bars(f"words of the edited texts, {found.words_edited:,}", edited, of=found.words_edited, width=_BAR // 8),
    )
    return both


def _ratios(found: EditStatistics) -> Table:
    rows = [(f"{k / 10:.1f} to {(k + 1) / 10:.1f}", count) for k, count in enumerate(found.edit_ratio_histogram)]
    return _bars("rows that change a word, by edit ratio", rows, of=sum(found.edit_ratio_histogram))


def _positions(found: EditStatistics) -> Table:
    rows = [(f"{10 * k} to {10 * (k + 1)} %", count) for k, count in enumerate(found.positions)]
    rows.append(("after the end", found.at_end))
    return _bars("changed words by place in the original", rows, of=sum(found.positions) + found.at_end)


def _most_changed(found: EditStatistics) -> Table:
    lists = {
        "substituted": [(f"{a} → {b}", count) for a, b, count in found.substituted],
        "inserted": list(found.inserted),
        "deleted": list(found.deleted),
    }
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title="most often", title_style="bold")
    for name in lists:
        table.add_column(_mark(found, name) + name, overflow="fold")
    for k in range(min(_WORDS, max(map(len, lists.values())))):
        table.add_row(*(_counted(*rows[k]) if k < len(rows) else Text() for rows in lists.values()))
    return table


def _counted(word: str, count: int) -> Text:
    return Text.assemble(visible(word), (f"  {count:,}", "dim"))


def _unknowable(found: EditStatistics) -> Group:
    title = f"words that the model could not have known, in {found.unknowable_rows:,} rows"
    typed = found.words_typed
    examples = Text("\n".join(visible(f"{row}: {kind} {text}") for row, kind, text in found.unknowable_examples), "dim")
    return Group(_bars(title, list(found.unknowable.items()), of=typed, share="of words typed"), examples)


def _bars(title: str, rows: Sequence[tuple[str, int]], *, of: int, width: int = _BAR, share: str = "") -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 1))
    table.add_column(overflow="fold")
    for justify in ("right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    most = max((count for _, count in rows), default=0)
    for name, count in rows:
        part = f"{count / max(of, 1):.1%} {share}".strip()
        table.add_row(Text(visible(name)), f"{count:,}", part, Text(_bar(count, most, width), "blue"))
    return table


def _bar(count: int, most: int, width: int) -> str:
    """As long as the count, in eighths of a character; what is there at all is seen."""
    eighths = max(round(8 * width * count / max(most, 1)), int(count > 0))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
