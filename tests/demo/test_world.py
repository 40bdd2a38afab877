from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from random import Random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errata.demo.editor import correct, edit_cost
from errata.demo.judge import DefectKind, judge, preference
from errata.demo.language import (
    CARD_LINES,
    PHRASES,
    RUDE,
    SLOTS,
    Topic,
    match,
    opening_words,
    parse_card,
    scan,
    spell,
    word_types,
)
from errata.demo.world import DefectRates, make_prompts, write_response, write_with
from errata.edits import word_distance

CARD = "Write to Anna. Item: two red lamps. City: Paris. Arrives: Monday morning. Pay: card."
CLEAN = (
    "Dear Anna, We have packed your two red lamps. Expect it on Monday morning. "
    "The parcel goes straight to Paris. Please pay by card. Kind regards, the shop."
)
PROMPTS = [str(row.prompt) for row in make_prompts(200, Random(7))]
WORDS = word_types()

salads = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
glued = st.lists(st.sampled_from([*WORDS, " ", "\n", "é", "?"]), max_size=30).map("".join)


@st.composite
def mutilated(draw: st.DrawFn) -> str:
    """Defective letters to this file's card, with words dropped, doubled and swapped, and the end cut off."""
    rng = Random(draw(st.integers(0, 10**6)))
    rates = DefectRates().scaled(draw(st.sampled_from([0.0, 1.0, 3.0])))
    tokens = write_response(draw(st.sampled_from([CARD, *PROMPTS[:5]])), rng, defect_rates=rates).split(" ")
    for _ in range(draw(st.integers(0, 8))):
        at, to = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        tokens[at:at] = rng.choice([[], [tokens[to]], tokens[to : to + 8]])
        tokens[to : to + rng.choice([0, 1, 2])] = []
        tokens = tokens or ["Dear"]
    text = " ".join(tokens)
    return text[: draw(st.sampled_from([len(text), 3 * len(text) // 4, len(text) // 3]))]


any_text = st.one_of(st.text(), salads, glued, mutilated())


def kinds(response: str, prompt: str = CARD) -> list[DefectKind]:
    return [defect.kind for defect in judge(prompt, response).defects]


# The language.


def test_every_sentence_reads_as_its_own_template_and_no_other() -> None:
    rng = Random(0)
    for topic, templates in PHRASES.items():
        for template in templates:
            words = template.fill({slot: rng.choice(SLOTS[slot]) for _, slot in template.slots})
            assert match(words) is template, (topic, spell(words))
            assert match([*words, "Dear"]) is template
            assert match(words[:-1]) is None
            assert [token.text for token in scan(spell(words))] == list(words)


def test_no_word_plays_two_parts() -> None:
    templates = [*CARD_LINES.values(), *(template for group in PHRASES.values() for template in group)]
    literal = {word for template in templates for word in template.words if not word.startswith("{")}
    values = [word for words in SLOTS.values() for word in words]
    assert max(Counter([*values, *RUDE]).values()) == 1
    assert not literal.intersection(values, RUDE)
    assert not literal.intersection(RUDE)
    assert not literal.intersection(values)
    inner = {word for group in PHRASES.values() for template in group for word in template.words[1:]}
    assert not inner & opening_words()


def test_the_world_has_a_few_hundred_words() -> None:
    assert 250 <= len(WORDS) <= 400
    assert list(WORDS) == sorted(set(WORDS))


def test_a_card_is_read_back_from_its_text() -> None:
    card = parse_card(CARD)
    assert card.text == CARD
    assert card.facts[Topic.ARRIVAL] == {"day": "Monday", "part": "morning"}
    assert set(card.facts) == {Topic.NAME, Topic.ITEM, Topic.CITY, Topic.ARRIVAL, Topic.PAYMENT}


@pytest.mark.parametrize("prompt", ["Write a poem.", "Write to Anna. Write to Ben.", "Write to", "City: lamps."])
def test_a_prompt_that_is_no_card_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="not a card"):
        judge(prompt, CLEAN)


def test_a_conversation_is_refused() -> None:
    with pytest.raises(ValueError, match="not conversations"):
        judge([{"role": "user", "content": CARD}], CLEAN)


# The generator.


def test_prompts_are_distinct_cards_with_ids() -> None:
    rows = make_prompts(500, Random(1), prefix="held-out")
    assert len({row.prompt for row in rows}) == 500
    assert [row.id for row in rows][:2] == ["held-out-0", "held-out-1"]
    facts = Counter(len(parse_card(row.prompt).facts) for row in rows)
    assert set(facts) == {4, 5}
    assert {topic for row in rows for topic in parse_card(row.prompt).facts} == set(CARD_LINES)


def test_clean_responses_vary_and_are_clean() -> None:
    rng = Random(2)
    responses = [write_with(CARD, (), rng) for _ in range(100)]
    assert len(set(responses)) > 95
    assert all(judge(CARD, response).count == 0 for response in responses)
    orders = {tuple(sorted(("Paris", "Monday", "card"), key=response.index)) for response in responses}
    assert len(orders) == 6


@pytest.mark.parametrize("kind", list(DefectKind))
def test_one_injected_defect_is_the_one_that_the_judge_finds(kind: DefectKind) -> None:
    for seed, prompt in enumerate(PROMPTS):
        response = write_with(prompt, [kind], Random(seed))
        clean = write_with(prompt, (), Random(seed))  # the same letter, undamaged
        (defect,) = judge(prompt, response).defects
        assert defect.kind is kind, (clean, response)
        span = response[defect.start : defect.stop]
        assert judge(prompt, response).by_kind == {each: int(each is kind) for each in DefectKind}
        assert judge(prompt, response).well_formed == (kind not in (DefectKind.GARBLED, DefectKind.CLOSING))
        if kind is DefectKind.MISSING:
            (omitted,) = (mend for mend in defect.mends if mend in clean)
            assert span == ""
            assert clean.replace(f"{omitted} ", "") == response
            continue
        # All that is wrong lies in the span: what stands around it is the clean letter.
        assert clean.startswith(response[: defect.start].rstrip())
        assert clean.endswith(response[defect.stop :].lstrip())
        if kind is DefectKind.RUDE:
            assert span in RUDE
            assert 0 < defect.start < defect.stop < len(response)
        if kind is DefectKind.WRONG_FACT:
            assert defect.mends[0] in clean
            assert {span, defect.mends[0]} <= next(set(words) for words in SLOTS.values() if span in words)
        if kind is DefectKind.REPETITION:
            assert match([token.text for token in scan(span)]) is not None


def test_rates_give_the_expected_number_of_each_kind() -> None:
    rates = DefectRates(wrong_fact=0.3, rude=1.2, missing=0.2, repetition=0.1, closing=0.4, garbled=0.0)
    rng = Random(3)
    found = [judge(prompt, write_response(prompt, rng, defect_rates=rates)).by_kind for prompt in PROMPTS * 5]
    for kind in DefectKind:
        assert mean(each[kind] for each in found) == pytest.approx(getattr(rates, kind), abs=0.08), kind


def test_default_rates_give_about_two_and_a_half_defects_spread_over_the_kinds() -> None:
    rng = Random(4)
    found = [judge(prompt, write_response(prompt, rng, defect_rates=DefectRates())) for prompt in PROMPTS * 5]
    assert 2.3 < mean(judgement.count for judgement in found) < 2.8
    assert min(mean(judgement.by_kind[kind] for judgement in found) for kind in DefectKind) > 0.2


def test_rates_scale_and_refuse_negative_numbers() -> None:
    assert DefectRates(rude=0.5).scaled(2).rude == 1.0
    assert DefectRates().scaled(0).draw(Random(0)) == []
    with pytest.raises(ValueError, match="rude is -1"):
        DefectRates(rude=-1)


# The judge.


def test_judge_on_hand_made_letters() -> None:
    k = DefectKind
    assert kinds(CLEAN) == []
    assert kinds("") == [k.MISSING] * 5 + [k.CLOSING]
    assert kinds(CLEAN.replace("Anna", "Ben")) == [k.WRONG_FACT]
    assert kinds(CLEAN.replace("two red", "six blue")) == [k.WRONG_FACT, k.WRONG_FACT]
    assert kinds(CLEAN.replace("Monday morning.", "Monday morning")) == [k.GARBLED]
    assert kinds(CLEAN.replace("Dear Anna,", "Dear Anna")) == [k.GARBLED]
    assert kinds(CLEAN.replace("Kind", "The total price is fifty euros. Kind")) == [k.WRONG_FACT]
    assert kinds(CLEAN.replace("regards, the shop", "regards")) == [k.CLOSING]
    assert kinds(CLEAN.replace("Kind regards, the shop.", "Bye.")) == [k.CLOSING]
    assert kinds(CLEAN + " Please pay by card. Blah blah") == [k.CLOSING]
    assert kinds(CLEAN + " Kind regards, the shop.") == [k.CLOSING]
    assert kinds(CLEAN.replace("Please", "Kind regards, the shop. Please")) == [k.CLOSING]
    assert kinds(CLEAN.replace("Please", "Hello Anna, Please")) == [k.REPETITION]
    assert kinds(CLEAN.replace("Please", "Expect it on Friday morning. Please")) == [k.REPETITION]
    assert kinds(CLEAN.replace("Dear Anna, ", "").replace("Please", "Dear Anna, Please")) == [k.MISSING, k.GARBLED]
    assert kinds(CLEAN.replace("Please", "blah blah. blah. Please")) == [k.GARBLED, k.GARBLED]
    assert kinds(CLEAN.replace("Kind regards, the shop.", "Bye. Bye.")) == [k.CLOSING, k.CLOSING]
    assert kinds(CLEAN.replace(" ", "  ").replace("  Please", "\nPlease")) == []


def test_a_garbled_sentence_far_from_all_others_leaves_its_fact_missing() -> None:
    text = CLEAN.replace("Please pay by card.", "Please card the the way.")
    assert kinds(text) == [DefectKind.MISSING, DefectKind.GARBLED]
    assert judge(CARD, text).defects[1].mends == ("",)


def test_a_garbled_sentence_becomes_the_first_of_the_nearest() -> None:
    text = CLEAN.replace("Expect it", "blah blah blah")
    (defect,) = judge(CARD, text).defects
    assert defect.mends == ("Expect it on Monday morning.",)  # three words away, as are three others


def test_nothing_is_repaired_in_front_of_the_greeting() -> None:
    fact = "Please pay by card. "
    assert kinds(fact.replace("pay", "pay pay") + CLEAN.replace(fact, "")) == [DefectKind.GARBLED, DefectKind.MISSING]
    moved = CLEAN.replace("Dear Anna, ", "").replace("Please", "Dear Anna Please")
    assert kinds(moved) == [DefectKind.MISSING, DefectKind.GARBLED]


def test_a_sentence_between_two_bad_closings_is_still_repaired() -> None:
    text = CLEAN.replace("Please pay by card. Kind regards, the shop.", "Bye. Please pay pay by card. Bye.")
    assert kinds(text) == [DefectKind.CLOSING, DefectKind.GARBLED, DefectKind.CLOSING]


@given(text=any_text)
def test_any_text_can_be_judged(text: str) -> None:
    judgement = judge(CARD, text)
    assert judgement.count == sum(judgement.by_kind.values())
    assert list(judgement.defects) == sorted(judgement.defects, key=lambda defect: (defect.start, defect.stop))
    for defect in judgement.defects:
        assert 0 <= defect.start <= defect.stop <= len(text)
        assert defect.mends
        assert ("" in defect.mends) <= (defect.start < defect.stop)
    assert judgement == judge(CARD, text)


# The editor.


@given(text=any_text, prompt=st.sampled_from([CARD, *PROMPTS[:5]]), seed=st.integers(0, 99))
@settings(max_examples=300)
def test_the_full_editor_leaves_no_defect(text: str, prompt: str, seed: int) -> None:
    corrected = correct(prompt, text, Random(seed))
    assert kinds(corrected, prompt) == [], corrected
    assert correct(prompt, corrected, Random(seed)) == corrected
    assert (edit_cost(prompt, text) == 0) == (judge(prompt, text).count == 0)
    assert edit_cost(prompt, corrected) == 0
    if judge(prompt, text).count == 0:
        assert corrected == text


@given(text=any_text, seed=st.integers(0, 99))
def test_a_half_diligent_editor_takes_any_text(text: str, seed: int) -> None:
    assert correct(CARD, text, Random(seed), diligence=0.5) == correct(CARD, text, Random(seed), diligence=0.5)
    assert correct(CARD, text, Random(seed), diligence=0.0) == text


@pytest.mark.parametrize(
    ("damaged", "part"),
    [
        (("two red", "two blue"), "red"),
        (("We have", "We stupid have"), ""),
        (("card. Kind", "cash. Kind"), "card"),
        (("morning.", "morning stupid."), ""),
        (("Please pay", "Please pay pay"), "Please pay by card."),
        ((" Please pay by card.", " Please pay by card. You can settle the bill by card."), ""),
        (("the shop.", "the shop. Bye."), ""),
        (("regards, the", "regards the"), "Kind regards, the shop."),
    ],
)
def test_the_editor_restores_the_letter_character_for_character(damaged: tuple[str, str], part: str) -> None:
    text = CLEAN.replace(*damaged)
    assert text != CLEAN
    assert [defect.mends for defect in judge(CARD, text).defects] == [(part,)]
    assert correct(CARD, text, Random(0)) == CLEAN


def test_a_missing_sentence_is_inserted_where_it_belongs_in_any_of_its_words() -> None:
    text = CLEAN.replace("The parcel goes straight to Paris. ", "")
    versions = {correct(CARD, text, Random(seed)) for seed in range(100)}
    sentences = [spell(words) for words in parse_card(CARD).sentences[Topic.CITY]]
    lead = "Dear Anna, We have packed your two red lamps."
    assert versions == {text.replace(lead, f"{lead} {sentence}") for sentence in sentences}


def test_a_missing_sentence_follows_a_repaired_one() -> None:
    city = "The parcel goes goes straight to Paris."
    text = f"Dear Anna, We have packed your two red lamps. Please pay by card. {city} Kind regards, the shop."
    garbled, missing = judge(CARD, text).defects
    assert (garbled.kind, missing.kind) == (DefectKind.GARBLED, DefectKind.MISSING)
    assert missing.start == text.index(city) + len(city)


def test_corrections_keep_the_white_space_around_them() -> None:
    text = "\n" + CLEAN.replace(" Expect", "\n\nExpect").replace("Monday", "silly Friday").replace(
        " Please", "\tPlease"
    )
    assert correct(CARD, text, Random(0)) == text.replace("silly Friday", "Monday")
    assert correct(CARD, "stupid " + CLEAN, Random(0)) == CLEAN
    assert correct(CARD, CLEAN.replace(" Expect", "Expect"), Random(0)) == CLEAN.replace(" Expect", "Expect")


def test_the_correction_is_no_longer_than_undoing_the_damage() -> None:
    reversible = [DefectKind.WRONG_FACT, DefectKind.RUDE, DefectKind.REPETITION, DefectKind.GARBLED]
    rng = Random(5)
    for seed, prompt in enumerate(PROMPTS):
        damage = rng.choices(reversible, k=rng.randrange(1, 5))
        response = write_with(prompt, damage, Random(seed))
        clean = write_with(prompt, (), Random(seed))
        assert 0 < edit_cost(prompt, response) <= word_distance(response, clean)


def test_edit_cost_by_hand() -> None:
    assert edit_cost(CARD, CLEAN) == 0
    assert edit_cost(CARD, CLEAN.replace("two red", "six stupid blue")) == 3
    assert edit_cost(CARD, CLEAN.replace("Please pay by card. ", "")) == len(["Please", "pay", "by", "card", "."])
    assert edit_cost(CARD, CLEAN + " Bye.") == 2


def test_diligence_is_the_share_of_defects_noticed() -> None:
    rng = Random(6)
    before = after = 0
    for prompt in PROMPTS * 3:
        response = write_response(prompt, rng, defect_rates=DefectRates())
        before += judge(prompt, response).count
        after += judge(prompt, correct(prompt, response, rng, diligence=0.7)).count
    assert after / before == pytest.approx(0.3, abs=0.04)


# Preferences.


def test_preferences_are_right_about_seven_times_in_ten_where_responses_differ() -> None:
    rng = Random(8)
    right = []
    for prompt in PROMPTS * 10:
        a, b = (write_response(prompt, rng, defect_rates=DefectRates()) for _ in range(2))
        margin = judge(prompt, b).count - judge(prompt, a).count
        if margin:
            right.append(preference(prompt, a, b, rng) == (margin > 0))
    assert 0.70 < mean(right) < 0.76


def test_preference_follows_the_margin() -> None:
    worse = CLEAN.replace("Anna", "silly Ben")
    rng = Random(9)
    assert mean(preference(CARD, CLEAN, worse, rng, noise=2.0) for _ in range(2000)) == pytest.approx(0.731, abs=0.03)
    assert mean(preference(CARD, worse, CLEAN, rng, noise=2.0) for _ in range(2000)) == pytest.approx(0.269, abs=0.03)
    assert mean(preference(CARD, CLEAN, CLEAN, rng) for _ in range(2000)) == pytest.approx(0.5, abs=0.04)
    assert all(preference(CARD, CLEAN, "", rng, noise=1e-9) for _ in range(20))
    with pytest.raises(ValueError, match="noise 0"):
        preference(CARD, CLEAN, worse, rng, noise=0)


# Speed and reproducibility.


def test_a_thousand_responses_are_judged_and_corrected_within_a_second() -> None:
    rng = Random(10)
    pairs = [(prompt, write_response(prompt, rng, defect_rates=DefectRates())) for prompt in PROMPTS * 5]
    start = time.process_time()
    for prompt, response in pairs:
        judge(prompt, response)
        correct(prompt, response, rng)
    assert time.process_time() - start < 1.0


@cache
def everything() -> str:
    """A digest of all that the world writes from one seed."""
    rng = Random(11)
    digest = hashlib.sha256()
    for row in make_prompts(100, rng):
        a, b = (write_response(row.prompt, rng, defect_rates=DefectRates()) for _ in range(2))
        salad = " ".join(rng.choices(WORDS, k=30))
        texts = [correct(row.prompt, text, rng, diligence=0.8) for text in (a, b, salad)]
        record = (
            row,
            a,
            b,
            judge(row.prompt, salad),
            texts,
            preference(row.prompt, a, b, rng),
            edit_cost(row.prompt, a),
        )
        digest.update(repr(record).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_writes_the_same_world(hash_seed: str) -> None:
    folder = os.path.dirname(__file__)
    command = [sys.executable, "-c", "import test_world; print(test_world.everything())"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == everything()


HABITS = {
    "Guarantee": DefectKind.MISSING,
    "Arrives": DefectKind.REPETITION,
    "Carrier": DefectKind.WRONG_FACT,
    "Pay": DefectKind.RUDE,
}


def test_a_habit_shows_wherever_its_topic_is_on_the_card():
    rng = Random(5)
    seen = set()
    for row in make_prompts(60, rng):
        response = write_response(row.prompt, rng, defect_rates=DefectRates().scaled(0), habit_rate=1.0)
        expected = sorted(kind for label, kind in HABITS.items() if f"{label}:" in row.prompt)
        assert sorted(defect.kind for defect in judge(row.prompt, response).defects) == expected, (row.prompt, response)
        seen |= set(expected)
    assert seen == set(HABITS.values())


def test_a_habit_shows_as_often_as_it_should():
    rng = Random(6)
    rows = [row for row in make_prompts(900, rng) if "Pay:" in row.prompt]
    rude = [
        judge(
            row.prompt, write_response(row.prompt, rng, defect_rates=DefectRates().scaled(0), habit_rate=0.65)
        ).by_kind
        for row in rows
    ]
    share = sum(found[DefectKind.RUDE] for found in rude) / len(rows)
    assert abs(share - 0.65) < 0.08
