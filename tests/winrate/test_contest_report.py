from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from errata.types import Demonstration
from errata.winrate import ChatJudge, Contest, ScoreJudge, contest, contest_headline, contest_html, contest_markdown
from errata.winrate.contest_report import contest_terminal

from .chats import Scripted, fewer_rude

HOSTILE = (
    "<script>hurt = 1</script></style><img src=x onerror='hurt=2'>\"' onmouseover=hurt=3 "
    "\u202eevil\u202c\u2028\x00\x07 {{ 7*7 }} {% x %} | **bold** [a](javascript:hurt=4) `code` &lt;\n# head"
)


def rows(texts, **extra):
    return [Demonstration(id=f"p{k}", prompt=f"say {k}", response=t, extra=extra) for k, t in enumerate(texts)]


def made(**changed) -> Contest:
    good, bad = ["one two"] * 30, ["one rude two"] * 24 + ["one two three four"] * 16
    arms = {"figa": rows(good + bad[:10]), "sft": rows([*good[:15], *bad[15:]])}
    judge = ChatJudge(Scripted(fewer_rude), name="scripted:judge", guideline="Be kind.")
    settings = {"baseline_name": "start", "date": "2026-11-24T12:00:00+00:00", **changed}
    found, _ = contest(arms, rows(bad, topic="letters"), judge, group_field="topic", **settings)
    return found


def hostile() -> Contest:
    arms = {HOSTILE: rows([HOSTILE, "b"]), "plain": rows(["x", HOSTILE * 2])}
    base = [
        Demonstration(id=HOSTILE + str(k), prompt=HOSTILE, response=HOSTILE[k:], extra={HOSTILE: HOSTILE})
        for k in (0, 9)
    ]
    for arm, answers in arms.items():
        arms[arm] = [
            Demonstration(id=there.id, prompt=there.prompt, response=row.response, extra={"editor_model": HOSTILE})
            for there, row in zip(base, answers, strict=True)
        ]
    judge = ChatJudge(Scripted(lambda *_: HOSTILE), name=HOSTILE)
    return contest(arms, base, judge, baseline_name=HOSTILE, group_field=HOSTILE, date=HOSTILE)[0]


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize("found", [made(), hostile()], ids=["plain", "hostile"])
def test_the_page_has_no_script_and_fetches_nothing(found) -> None:
    page = contest_html(found)
    seen = Seen()
    seen.feed(page)
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "embed", "a", "form"}
    assert not {name for name in seen.attributes if name.startswith("on") or name in ("src", "href")}
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}", page)
    assert page.count("<style>") == page.count("</style>") == 1


def test_dark_colours_and_narrow_tables_are_for_screens_alone() -> None:
    """A browser that likes it dark would print light ink on white paper."""
    page = contest_html(made())
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "@media (prefers-color-scheme: dark)" not in page
    assert "@media (max-width: 46rem)" not in page


def test_the_page_says_who_judged() -> None:
    page = contest_html(made())
    for said in ("chat: scripted:judge", "scripted-1", "pairwise_1", "2026-11-24", "$", "letters", "shorter", "start"):
        assert said in page
    assert made().judge.prompt_hash in page


def test_markdown_shows_names_and_does_not_obey_them() -> None:
    text = contest_markdown(hostile())
    assert "<script" not in text
    assert "**bold**" not in text
    assert "[a](" not in text
    assert "\n# head" not in text
    assert "\u202e" not in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in tables[:2]} == {tables[0].count("|")}


def test_no_line_of_an_answer_is_a_list_a_rule_a_head_or_code() -> None:
    """ "a", then "===" below it, is a head line in Markdown."""
    lines = ["a", "===", "- b", "+ c", "1. d", "---", "     e", "2) f"]
    same = ScoreJudge(lambda answers: [0.0] * len(answers), name="blind")
    text = contest_markdown(contest({"a": rows(["\n".join(lines)] * 2)}, rows(["x"] * 2), same)[0])
    quoted = [line[2:-2] for line in text.splitlines() if line.startswith("> ")]
    for line in lines:
        assert line == "a" or line not in quoted
        assert line in map(html.unescape, quoted), "it reads as it did"


def test_markdown_has_the_numbers() -> None:
    text = contest_markdown(made())
    assert "| figa | **" in text
    assert "## Between arms" in text
    assert "## By length" in text
    assert "## By topic" in text
    assert "> one rude two" in text


def test_headline() -> None:
    found = made()
    first, second, third = contest_headline(found)
    assert first.startswith("sft wins ")
    assert "against start" in first
    assert "better than it by more than chance" in first
    assert second.startswith("It cannot be told from figa (")
    assert found.differences[0].difference.low < 0 < found.differences[0].difference.high
    assert third.startswith("At equal length the lead is not certain"), "what won was shorter each time"
    arms = {"good": rows(["one"] * 40), "bad": rows(["one rude"] * 40)}
    judge = ChatJudge(Scripted(fewer_rude), name="j")
    apart, _ = contest(arms, rows(["rude one"] * 40), judge)
    assert contest_headline(apart)[1].startswith("It is ahead of bad by more than chance (50.0 points, p < 0.001)")
    same = ScoreJudge(lambda answers: [0.0] * len(answers), name="blind")
    blind, _ = contest({"a": rows(["x"] * 40)}, rows(["y"] * 40), same)
    assert (
        contest_headline(blind)[0]
        == "a wins 50.0 % against baseline (46.6 to 53.4): not to be told from it by 40 prompts."
    )


def test_few_prompts_that_agree_prove_nothing() -> None:
    """Unanimous verdicts have an interval with a width, the wider the fewer they are."""
    longer = ScoreJudge(lambda answers: [len(a) for _, _, a in answers], name="long")
    for count, told in ((4, "not to be told from it by 4 prompts"), (8, "better than it by more than chance")):
        arms = {"a": rows(["xxx"] * count), "b": rows(["xx"] * (count - 1) + [""])}
        found, _ = contest(arms, rows(["x"] * count), longer)
        assert contest_headline(found)[0].endswith(f"{told}.")
    arms = {"a": rows(["xx"] * 4), "b": rows([""] * 4)}
    apart = contest(arms, rows(["x"] * 4), longer)[0]
    assert apart.differences[0].difference.low < 0
    said = "It cannot be told from b (100.0 points, p = 0.125); 4 prompts are too few to show any difference."
    assert contest_headline(apart)[1] == said
    assert 'class="wide apart"' not in contest_html(apart)


def test_no_valid_verdict_is_no_rate_in_any_report() -> None:
    """Neither 50 %, nor a tie: nothing is known."""
    arms = {"mute": rows(["one"] * 30), "half": rows(["two"] * 30)}

    def word(request, first, second):
        return "tie" if "two" in (first, second) and request < "say 2" else None

    found, _ = contest(arms, rows(["x"] * 30), ChatJudge(Scripted(word), name="j"))
    first, second, third = contest_headline(found)
    assert first.startswith("half wins 50.0 % against baseline (")
    assert first.endswith("not to be told from it by 12 valid verdicts.")
    assert second == "18 of 30 pairs have no valid verdict; as ties they would make it 50.0 %."
    assert third == "mute has no valid verdict, 0 of 30: nothing is known of its win rate."
    page, text = contest_html(found), contest_markdown(found)
    for report in (page, text):
        assert "no valid verdict, 0 of 30" in report
        assert "invalid as ties, %" in report
    assert "| mute | **–** | – |" in text
    silent = contest({"mute": arms["mute"], "too": arms["mute"]}, rows(["x"] * 30), ChatJudge(Scripted(word), name="j"))
    assert [one.endswith("nothing is known of its win rate.") for one in contest_headline(silent[0])] == [True, True]
    assert "50.0" not in contest_markdown(silent[0])


def test_a_lead_that_is_length_is_said() -> None:
    longer = ScoreJudge(lambda answers: [len(a) for _, _, a in answers], name="long")
    texts = ["one two three " * (1 + k % 4) for k in range(40)]
    found, _ = contest({"a": rows(texts)}, rows(["one two three four"] * 40), longer)
    assert any("At equal length" in sentence for sentence in contest_headline(found))


def test_the_terminal() -> None:
    console = Console(width=100, record=True, file=None)
    with console.capture() as captured:
        console.print(contest_terminal(hostile()))
    assert "\x1b]" not in captured.get()
    assert "\u202e" not in captured.get()
    with console.capture() as captured:
        console.print(contest_terminal(made()))
    assert "figa − sft" in captured.get()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("found", [made(), hostile()], ids=["plain", "hostile"])
def test_in_a_browser_nothing_runs_and_nothing_overflows(chromium: Any, tmp_path, found, width) -> None:
    file = tmp_path / "report.html"
    file.write_text(contest_html(found), encoding="utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 900})
    told: list[Any] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("request", lambda request: told.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    assert page.evaluate("typeof hurt") == "undefined"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(
        "[...document.querySelectorAll('svg.outcomes')].map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])"
    )
    assert all(0 <= left < right <= width for left, right in boxes)
    assert not told
    page.close()
