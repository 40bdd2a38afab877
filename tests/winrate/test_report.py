from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from errata.winrate import Summary, combine_seeds, headline, report_html, report_terminal

HOSTILE = "<script>hurt = 1</script></style><img src=x onerror='hurt=2'>\"'\u202e\x00\ud800{{ 7*7 }}[red]"


def terminal(summary: Summary, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width).print(report_terminal(summary))
    return out.getvalue()


def changed(summary: Summary, arm: str, decoding: str, **changes: Any) -> Summary:
    return replace(
        summary,
        arms=tuple(
            replace(row, **{decoding: replace(getattr(row, decoding), **changes)}) if row.name == arm else row
            for row in summary.arms
        ),
    )


def hostile(summary: Summary) -> Summary:
    """Everything that is text, from wherever, is an attack."""
    return replace(
        summary,
        arms=tuple(
            replace(arm, name=HOSTILE, greedy=replace(arm.greedy, defects_by_kind={HOSTILE: 1.0}))
            for arm in summary.arms
        ),
        controls=tuple(replace(row, name=HOSTILE) for row in summary.controls),
        reward_models=tuple(
            replace(row, name=HOSTILE, kind=HOSTILE, objective=HOSTILE) for row in summary.reward_models
        ),
        curves=tuple(replace(row, arm=HOSTILE) for row in summary.curves),
        data={HOSTILE: 3.0},
        examples=tuple(
            replace(
                row,
                name=HOSTILE,
                prompt=HOSTILE,
                after=replace(row.after, tokens=(replace(row.after.tokens[0], text=HOSTILE), *row.after.tokens[1:])),
            )
            for row in summary.examples
        ),
    )


def test_a_tie_is_said(summary: Summary) -> None:
    greedy, sampled, same = headline(summary)
    # Both intervals reach .21 to each side: .09 ± .21 √2.
    assert greedy == (
        "Decoded greedily, figa_ppo_token leaves the least to correct: 1.69 words a response, where start leaves 5.61. "
        "Next is ppo_token with 1.78; a tie: the difference, 0.09 words, is within the noise "
        "(95 % interval −0.21 to 0.39)."
    )
    assert sampled.startswith("Sampled at T = 1, figa_ppo_token leaves the least to correct: 1.94 words")
    assert same == "Greedy, the judge cannot tell from start: sft_edited."


def test_a_difference_is_said(summary: Summary) -> None:
    far = changed(summary, "figa_ppo_token", "greedy", edit_cost=1.2, edit_cost_low=1.1, edit_cost_high=1.3)
    assert "the difference, 0.58 words, is more than noise (95 % interval 0.35 to 0.81)" in headline(far)[0]
    assert "tie" not in headline(far)[0]


def test_no_interval_no_claim(summary: Summary) -> None:
    blind = changed(summary, "ppo_token", "greedy", edit_cost_low=None)
    assert "whether it is noise cannot be said" in headline(blind)[0]


def test_the_start_may_be_the_best(summary: Summary) -> None:
    best = changed(summary, "start", "greedy", edit_cost=0.5, edit_cost_low=0.4, edit_cost_high=0.6)
    assert headline(best)[0].startswith(
        "Decoded greedily, start leaves the least to correct: 0.50 words a response. No arm is below it; "
        "figa_ppo_token is next with 1.69; the difference, 1.19 words, is more than noise"
    )


def test_few_arms(summary: Summary) -> None:
    assert headline(replace(summary, arms=())) == ["No arm was evaluated."]
    assert headline(replace(summary, arms=summary.arms[:1])) == [
        "start alone was evaluated: it leaves 5.61 words a response to correct when decoded greedily."
    ]
    two = headline(replace(summary, arms=summary.arms[:2]))[0]
    assert two.count("start leaves 5.61") == 1
    assert "Next is" not in two
    for few in (0, 1, 2):
        assert report_html(Summary(seeds=(0,), arms=summary.arms[:few]))
        assert terminal(Summary(seeds=(0,), arms=summary.arms[:few]))


def test_seeds_are_paired(summary: Summary) -> None:
    """Seeds that differ much, arms that differ by the same in each: the pairs see it, single intervals would not."""
    seeds = []
    for seed, shift in ((0, 0.0), (1, 1.0), (2, -1.0)):
        one = changed(summary, "figa_ppo_token", "greedy", edit_cost=1.5 + shift)
        one = changed(one, "ppo_token", "greedy", edit_cost=2.0 + shift + seed / 50)
        seeds.append(replace(one, seeds=(seed,)))
    said = headline(combine_seeds(seeds))[0]
    # Differences .50, .52, .54: .52 ± 4.302653 × .02 / √3.
    assert "the difference, 0.52 words, is more than noise (95 % interval 0.47 to 0.57)" in said


@pytest.mark.parametrize("count", [1, 3])
def test_both_reports_say_how_the_intervals_were_made(summary: Summary, count: int) -> None:
    both = combine_seeds([replace(summary, seeds=(seed,)) for seed in range(count)])
    for said in (report_html(both), terminal(both, 1000)):
        assert ("intervals over the prompts of one seed" in said) == (count == 1)
        assert ("t-intervals over 3 seeds" in said) == (count == 3)


def test_the_terminal_tables_fit_eighty_columns(summary: Summary) -> None:
    said = terminal(summary)
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert re.search(r"figa_ppo_token +82\.3 77\.8 to 86\.8 +80\.3 +1\.69 +0\.68 +97\.2 41\.9 12\.60 0\.61 +60", said)
    assert re.search(r"start at T=0\.5 +64\.4", said)
    assert re.search(r"token .* 73\.3 +93\.4 +0\.931 +0\.957 +84\.2 +1\.22", said)
    assert "0.28 / 0.32" in said
    assert "4,312 words typed" in said


def test_sharpening_is_said_only_where_it_wins(summary: Summary) -> None:
    assert "Sharpening alone wins a sampled comparison: start at T=0.3 wins 66.1 %" in terminal(summary, 500)
    tied = replace(
        summary,
        controls=tuple(
            replace(row, sampled=replace(row.sampled, win_rate=0.5, ci_low=0.4, ci_high=0.6))
            for row in summary.controls
        ),
    )
    assert "Sharpening alone wins nothing here" in terminal(tied, 500)
    assert "Sharpening" not in report_html(replace(summary, controls=()))


def test_what_was_not_measured_is_a_dash(summary: Summary) -> None:
    bare = changed(summary, "figa", "greedy", kl=None, entropy=None, outsider=None)
    assert re.search(r"figa +70\.5 66\.0 to 75\.0 +– +2\.94 +1\.18 +95\.1 42\.3 +– +– +9", terminal(bare))
    assert "None" not in report_html(bare)


def test_the_page_has_everything_and_needs_nothing(summary: Summary) -> None:
    html = report_html(summary)
    assert not re.search(r"url\(|@import|<script|<link|<img|src=", html)
    assert set(re.findall(r"https?://[^\"]*", html)) == {"http://www.w3.org/2000/svg"}
    assert html.count('class="forest ') == 9 + 9 + 3 + 2
    assert html.count('class="chart"') == 9
    assert html.count('class="curve"') == 27
    assert html.count("<article>") == 2
    for kind in ("wrong fact", "missing sentence", "broken closing"):
        assert html.count(f">{kind}<") == 2
    for explained in ("Edit cost left", "KL", "Length", "Against outsider"):
        assert f"<dt>{explained}</dt>" in html


def test_examples_share_one_scale(summary: Summary) -> None:
    """A token's colour depends on the largest value of the page, be it in another example."""
    first, second = summary.examples
    token = second.before.tokens[0]
    loud = replace(second, before=replace(second.before, tokens=(replace(token, value=9.0), *second.before.tokens[1:])))

    def color(page: Summary) -> str:
        match = re.search(r'style="--a:([\d.]+)" title="-0.9 · gold editor: changes it"', report_html(page))
        assert match
        return match[1]

    assert color(summary) == "1.00"
    assert color(replace(summary, examples=(first, loud))) == "0.10"


def test_gold_edits_are_outlined(summary: Summary) -> None:
    outlined = re.findall(r'<span class="tok [^"]*outlined"[^>]*>(.*?)</span>(\w+)</span>', report_html(summary))
    assert [word for _, word in outlined] == ["nine", "stupid", "stupid", "seven", "nine", "stupid"]


def test_hostile_text_is_escaped(summary: Summary) -> None:
    html = report_html(hostile(summary))
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("</style>") == 1
    assert "{{ 7*7 }}" in html
    for char in "\u202e\x00\ud800":
        assert char not in html
    said = terminal(hostile(summary), 300)
    assert "[red]" in said
    for char in "\u202e\x00\ud800":
        assert char not in said


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1300])
@pytest.mark.parametrize("name", ["report", "hostile report"])
def test_in_a_real_browser(chromium: Any, summary: Summary, tmp_path: Path, name: str, width: int) -> None:
    """No script runs, nothing is fetched, nothing runs over the side; even without the page's content policy."""
    html = {
        "report": lambda: report_html(summary),
        "hostile report": lambda: report_html(hostile(summary)),
    }[name]()
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    context = chromium.new_context(viewport={"width": width, "height": 900}, bypass_csp=True)
    page = context.new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(path.as_uri(), wait_until="load")
    assert page.evaluate("typeof hurt") == "undefined"
    assert page.evaluate("document.querySelectorAll('script, img, [onerror], [onmouseover]').length") == 0
    assert requests == [path.as_uri()]
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelectorAll('style').length") == 1
    if name == "report":
        minus, plus = (
            page.evaluate(f"getComputedStyle(document.querySelector('.tok.marked.{sign}'), '::after').content")
            for sign in ("neg", "pos")
        )
        assert (minus, plus) == ('"−"', '"+"')
    else:
        assert "<script>hurt = 1</script>" in page.evaluate("document.body.innerText.replaceAll('\\u00a0', ' ')")
    context.close()


@pytest.mark.browser
def test_the_policy_of_the_page_forbids_scripts(chromium: Any, summary: Summary, tmp_path: Path) -> None:
    """The second wall: were something not escaped, it would still not run."""
    path = tmp_path / "page.html"
    path.write_text(report_html(summary).replace("</main>", "<script>hurt = 1</script></main>"), encoding="utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("typeof hurt") == "undefined"
    page.close()
