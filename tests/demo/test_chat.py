"""The world's editor in the place of a language model."""

from __future__ import annotations

from random import Random

from errata.demo.chat import EditorChat
from errata.demo.judge import DefectKind, judge
from errata.demo.world import make_prompts, write_with
from errata.edits import Draft, LLMEditorConfig, edit_drafts


def test_it_mends_letters_through_the_same_words_as_a_model() -> None:
    rng = Random(0)
    cards = make_prompts(20, rng)
    kinds = [[], [DefectKind.RUDE], [DefectKind.MISSING], [DefectKind.WRONG_FACT, DefectKind.REPETITION]]
    drafts = [
        Draft(id=row.id, prompt=row.prompt, response=write_with(row.prompt, kinds[k % 4], rng))
        for k, row in enumerate(cards)
    ]
    found = edit_drafts(EditorChat(), drafts)
    assert [judge(row.prompt, row.edited).count for row in found.corrections] == [0] * 20
    assert (found.report.kept, found.report.edited) == (5, 15)
    assert [row.reasons for row in found.corrections[:4]] == [(), ("style",), ("missing",), ("style", "wrong")]
    assert edit_drafts(EditorChat(), drafts) == found
    lazy = edit_drafts(EditorChat(diligence=0.5), drafts)
    assert found.report.kept < lazy.report.kept < 20


def test_asked_again_it_cannot() -> None:
    (card,) = make_prompts(1, Random(0))
    draft = Draft(id="a", prompt=card.prompt, response=write_with(card.prompt, [DefectKind.MISSING] * 2, Random(1)))
    (aside,) = edit_drafts(EditorChat(), [draft], LLMEditorConfig(max_edit_ratio=0.05, free_words=0)).set_aside
    assert (aside.reason, aside.why) == ("cannot", "it takes more than a few words")
