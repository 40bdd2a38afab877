"""summary.json, the page and the terminal say the same: every number, and the verdict."""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from errata.winrate import Interval
from errata.workflows import Limits, TokenLogprobs, decide, learned_html, learned_terminal
from errata.workflows.learned import Candidate, Example, Learned
from errata.workflows.verdict import AnewCompared, Drafter, JudgedPairs, Measured
from workflows.test_verdict import ALONG, GOOD, NEW, OLD, POINTS, compared

LOG = {
    "rows": 1240,
    "unchanged": 31,
    "bad_rows": 7,
    "times": {
        **{"format": "iso", "first": "2026-01-01", "last": "2026-02-03", "unread": 2, "missing": 3},
        "without_time_zone": 5,
    },
    "time_field": "date",
    "user_field": "User",
    "normalized": {"rows": 0, "said": ""},
    "mechanical": {"said": []},
    "masked": {"email": 4},
    "rows_masked": 3,
    "own_weights_dropped": 0,
    "sampled_ids_dropped": 0,
}
SPLIT = {
    **{"heldout_users": 17, "train_users": 43, "rule": "By users.", "train": 801, "selection": 88, "heldout": 103},
    **{"fallback": None, "left_out": {"too early": 9}, "selection_left_out": {}, "not_drafted": {}},
}
BY_USERS = compared(-6.25, -3.75, users=17, rows=103)
MEASURED = replace(
    GOOD,
    points=replace(POINTS, missed=BY_USERS, otherwise=compared(0.25, 1.75, users=17, rows=103)),
    drafter=Drafter(rows=103, again=0.37, logged_cost=5.5),
    old={"greedy": replace(OLD, edit_cost=Interval(5.25, 4.5, 6.5)), "sampled": replace(OLD, length=31.7)},
    new={"greedy": replace(NEW, repetition=0.117), "sampled": replace(NEW, ended=0.885)},
    comparison={"greedy": compared(-1.5, -0.25, users=17), "sampled": compared(-2.5, 0.25)},
    old_tokens=TokenLogprobs(good=-4.125, bad=None, kept=-1.0625),
    anew=AnewCompared(
        **{"editor": "the editor plain", "old": 15.5, "new": 0.375, "words": compared(-18.5, -12.25, rows=52)},
        **{"unedited": 2, "rewritten": 1, "drafts": 104},
    ),
    judged=JudgedPairs(judge="m@there", pairs=51, invalid=1, rate=0.625, low=0.55, high=0.71),
)


def learned(measured: Measured = MEASURED, limits: Limits | None = None) -> Learned:
    return Learned(
        decision=decide(measured, limits or Limits()),
        measured=measured,
        arm="figa",
        candidates=(
            Candidate(name="old", points=ALONG, step=0, steps=0, general=3.0),
            Candidate(name="figa", points=replace(ALONG, missed=3.3125), step=40, steps=57, general=3.05),
        ),
        logged_cost=Interval(5.5, 4.75, 6.25),
        accepted={"greedy": compared(-0.25, 0.5, rows=12)},
        log=LOG,
        split=SPLIT,
        doctor=({"severity": "warning", "what": "long <rows>", "rows": 3, "remedy": "look"},),
        lowered=("--min-rows 5 (usually 20)",),
        provenance={"model": "m (abc)", "log": "log.csv (def)", "date": "2026-11-30"},
        general_tokens=1234,
        examples=(Example(prompt="p", sent="a b", logged="a", old="a", new="a b", old_cost=1, new_cost=0),),
    )


def page_text(found: Learned) -> str:
    """What the page shows, its marks gone."""
    page = re.sub(r"<style>.*?</style>", "", learned_html(found), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def page_tables(found: Learned) -> dict[tuple[str, str], list[str]]:
    """Cells of the table on held-out rows, by group and name."""
    page = learned_html(found).partition("<h2>On held-out rows</h2>")[2].partition("</table>")[0]
    cells: dict[tuple[str, str], list[str]] = {}
    group = ""
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page.partition("<tbody>")[2], re.DOTALL):
        name, *rest = (html.unescape(each) for each in re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row))
        if rest:
            cells[group, name] = rest
        else:
            group = name
    return cells


def terminal_text(found: Learned) -> str:
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(learned_terminal(found))
    return console.export_text()


def terminal_tables(found: Learned) -> dict[tuple[str, str], list[str]]:
    table = terminal_text(found).partition("On held-out rows")[2].partition("✓ ")[0].partition("✗ ")[0]
    cells: dict[tuple[str, str], list[str]] = {}
    group = ""
    for line in table.splitlines():
        name, *rest = re.split(r" {2,}", line.strip())
        if not rest and name and "─" not in name:
            group = name
        elif rest and name != "old model":
            cells[group, name] = rest
    return cells


def numbers_of(found: dict[str, Any]) -> dict[tuple[str, str], list[float | None]]:
    """What each row of the table is to show, from summary.json; None is a dash."""
    measured = found["measured"]
    rows: dict[tuple[str, str], list[float | None]] = {}

    def interval(one: dict[str, Any]) -> list[float | None]:
        return [one["difference"]["mean"], one["difference"]["low"], one["difference"]["high"]]

    def shares(one: dict[str, Any]) -> list[float | None]:
        return [100 * one["wins"], 100 * one["ties"], 100 * one["losses"]]

    def pair(old: float | None, new: float | None, unit: float = 1) -> list[float | None]:
        return [None] * 3 if old is None or new is None else [unit * old, unit * new, unit * (new - old)]

    group, points = "Along what was sent", measured["points"]
    old, new = points["old"], points["new"]
    rows[group, "words people changed, still wrong"] = [old["missed"], new["missed"], *interval(points["missed"])]
    rows[group, "better / same / worse, %"] = shares(points["missed"])
    rows[group, "edit points written as sent, %"] = pair(old["written"], new["written"], 100)
    rows[group, "sent above drafted, % of edit points"] = pair(old["preferred"], new["preferred"], 100)
    name = "words people left, now otherwise"
    rows[group, f"{name}, %"] = pair(old["otherwise_share"], new["otherwise_share"], 100)
    rows[group, name] = [old["otherwise"], new["otherwise"], *interval(points["otherwise"])]
    if (anew := measured["anew"]) is not None:
        group = f"Drafts edited anew by {anew['editor']}"
        rows[group, "words changed"] = [anew["old"], anew["new"], *interval(anew["words"])]
        rows[group, "better / same / worse, %"] = shares(anew["words"])
    for how in ("greedy", "sampled"):
        group, old, new = f"Drafts, {how}", measured["old"][how], measured["new"][how]
        cost = [old["edit_cost"]["mean"], new["edit_cost"]["mean"]]
        rows[group, "words from what was sent"] = [*cost, *interval(measured["comparison"][how])]
        rows[group, "better / same / worse, %"] = shares(measured["comparison"][how])
        rows[group, "tokens"] = pair(old["length"], new["length"])
        rows[group, "drafts that end, %"] = pair(old["ended"], new["ended"], 100)
        rows[group, "repetition, %"] = pair(old["repetition"], new["repetition"], 100)
    for what in ("good", "bad", "kept"):
        tokens = (measured[side][what] for side in ("old_tokens", "new_tokens"))
        rows["Log-probability, nats", f"{what} tokens"] = pair(*tokens)
    if measured["old_general"] is not None:
        rows["Forgetting", "loss on the general text"] = pair(measured["old_general"], measured["new_general"])
    return rows


def shown(cells: list[str]) -> list[str]:
    return [each for cell in cells for each in re.findall(r"–|[−+]?[\d,]+(?:\.\d+)?", cell)]


def says(number: str, value: float | None) -> bool:
    """Whether a number as it is shown is this one, rounded to its decimals."""
    if value is None:
        return number == "–"
    read = float(number.replace("−", "-").replace(",", ""))
    return abs(read - value) <= 0.5 * 10 ** -len(number.partition(".")[2]) + 1e-9


REFUSED = replace(MEASURED, new_general=9.0, new={**MEASURED.new, "greedy": replace(NEW, length=900.0)})
FEW = replace(MEASURED, anew=None, judged=None, old_general=None, new_general=None, drafter=GOOD.drafter)


@pytest.mark.parametrize("measured", [MEASURED, REFUSED, FEW], ids=["promoted", "refused", "few figures"])
def test_all_three_say_the_same(measured: Measured) -> None:
    found = learned(measured)
    summary = json.loads(json.dumps(found.as_dict()))
    page, terminal = page_text(found), " ".join(terminal_text(found).split())
    tables = page_tables(found), terminal_tables(found)
    # Every row of the tables, number by number.
    expected = numbers_of(summary)
    for table in tables:
        assert set(table) == set(expected)
        for name, cells in table.items():
            assert len(shown(cells)) == len(expected[name]), (name, cells)
            assert all(map(says, shown(cells), expected[name])), (name, cells, expected[name])
    # Every condition and the verdict.
    decision = summary["decision"]
    assert decision["promoted"] is all(one["holds"] for one in decision["conditions"])
    verdict = "Promoted" if decision["promoted"] else "Refused"
    assert f"{verdict} (figa)." in terminal
    assert f'<p class="verdict {"yes" if decision["promoted"] else "no"}">{verdict}</p>' in learned_html(found)
    for text in (page, terminal):
        assert ("Promoted" in text, "Refused" in text) == (decision["promoted"], not decision["promoted"])
        for one in decision["conditions"]:
            assert f"{'✓' if one['holds'] else '✗'} {one['said']}" in text
        for said in (*decision["reasons"], f"Next: {decision['next']}", *(f"Then: {one}" for one in decision["then"])):
            assert said in text
        assert summary["lowered"][0] in text
        assert all(value in text for value in summary["provenance"].values())
        # How the rows were set apart.
        for number in (LOG["rows"], LOG["unchanged"], LOG["bad_rows"], *(SPLIT[n] for n in ("train", "heldout"))):
            assert f"{number:,}" in text
        assert "2 cannot be read; 3 rows have none; 5 name no time zone" in text
        assert "again: 37 % of 103" in text or "37 % of 103 logged drafts again" in text or measured is FEW
    assert len(decision["then"]) == (1 if measured is REFUSED else 0)


def test_the_figures_at_the_head_of_the_page_are_those_of_the_verdict() -> None:
    for measured, old, new, words in (
        (MEASURED, 15.5, 0.375, MEASURED.anew and MEASURED.anew.words),
        (FEW, FEW.points.old.missed, FEW.points.new.missed, FEW.points.missed),
    ):
        assert words
        found = learned(measured)
        facts = dict(re.findall(r"<div><dt>([^<]*)</dt><dd>([^<]*)</dd></div>", learned_html(found)))
        change = f"{abs(100 * words.difference.mean / old):.0f} %"
        assert next(iter(facts.values())) == f"{old:.1f} → {new:.1f}"
        assert facts["change"] == f"−{change}"
        assert f", {change} (with 95 % certainty" in found.decision.reasons[0]
        assert facts["trained on"] == "801 edits"


def test_few_rows_have_no_two_decimals_in_any_output() -> None:
    """Of seven rows no word is counted in hundredths; log-probabilities are of many tokens."""
    seven = compared(-6.25, -3.75, rows=7)
    few = replace(FEW, comparison={"greedy": seven, "sampled": seven})
    few = replace(few, points=replace(POINTS, missed=seven, otherwise=compared(0.25, 1.75, rows=7)))
    found = replace(learned(few), candidates=(), accepted={"greedy": seven})
    for cells in (page_tables(found), terminal_tables(found)):
        words = [cell for (_, name), row in cells.items() if name.startswith("words") for cell in row]
        assert len(words) > 6
        assert not [cell for cell in words if re.search(r"\d\.\d\d", cell)]
    assert "5.5 (4.8 to 6.2) words from what was sent" in terminal_text(found)
    assert "−5.0 (−6.2 to −3.8)" in page_text(found).partition("sent unchanged")[2]
