from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.edits import (
    Curation,
    Dropped,
    Filter,
    changed_only,
    curate,
    edit_ratio,
    edit_ratio_within,
    field_is_one_of,
    no_duplicates,
    reason_is_one_of,
    reward_gap,
    words_within,
)
from errata.types import Correction, Prompt

from .tokenizers import pairs


def row(id: str, original: str, edited: str, reasons: tuple[str, ...] = (), **extra: object) -> Correction:
    return Correction(id=id, prompt=f"prompt of {id}", original=original, edited=edited, reasons=reasons, extra=extra)


ROWS = [
    row("good", "all is well", "all is well", annotator="bob"),
    row("small", "one two three four", "one two three five six", ("wrong",), annotator="anna"),  # 2 of 5
    row("large", "one two", "quite another thing", ("style", "missing"), annotator=["bob", "eve"]),  # 3 of 3
    row("space", "a b", "a  b"),  # 0
]


def kept(*filters: Filter, rows: Sequence[Correction] = ROWS) -> list[str]:
    return [each.id for each in Curation(filters).keep(iter(rows))]


def test_edit_ratio() -> None:
    assert kept(edit_ratio_within(high=0.4)) == ["good", "small", "space"]
    assert kept(edit_ratio_within(high=0.39)) == ["good", "space"]
    assert kept(edit_ratio_within(low=0.4)) == ["good", "small", "large"]
    assert kept(edit_ratio_within(low=0.41)) == ["good", "large"]
    assert kept(edit_ratio_within(0.4, 0.4)) == ["good", "small"]


def test_words() -> None:
    assert kept(words_within("original", low=3)) == ["good", "small"]
    assert kept(words_within("original", high=3)) == ["good", "large", "space"]
    assert kept(words_within("edited", 3, 3)) == ["good", "large"]
    assert kept(words_within("edited", low=5)) == ["small"]


@pytest.mark.parametrize("make", [edit_ratio_within, lambda low, high: words_within("edited", low, high)])
@pytest.mark.parametrize(("low", "high"), [(1, 0), (-1, 0), (nan, 1), (0, nan)])
def test_an_empty_range_is_an_error(make, low, high) -> None:
    with pytest.raises(ValueError, match="the lower one first"):
        make(low, high)


def test_field() -> None:
    assert kept(field_is_one_of("annotator", ["bob"])) == ["good", "large"]
    assert kept(field_is_one_of("annotator", ["anna", "eve"])) == ["small", "large"]
    assert kept(
        field_is_one_of("round", ["2"]), rows=[row("a", "x", "y z", round=2), row("b", "x", "y z", round=3)]
    ) == ["a"]


def test_reason() -> None:
    assert kept(reason_is_one_of(["wrong"])) == ["good", "small"]
    assert kept(reason_is_one_of(["missing", "wrong"])) == ["good", "small", "large"]


def test_changed_only() -> None:
    assert kept(changed_only()) == ["small", "large", "space"]
    curation = Curation([changed_only()])
    assert len(list(curation.keep(ROWS))) == curation.kept == 3
    assert curation.kept_unchanged == 0


def test_duplicates() -> None:
    long = " ".join(map(str, range(50)))
    rows = [
        Correction(id=id, prompt="p", original=long, edited=f"{long} {end}")
        for id, end in zip("abcd", "xxyx", strict=True)
    ]
    assert kept(no_duplicates(), rows=rows) == ["a", "c"]
    assert kept(no_duplicates("near"), rows=rows) == ["a"]
    assert kept(no_duplicates(), no_duplicates(), rows=rows) == ["a", "c"]  # each remembers for itself


REWARDS = {"all is well": 9.0, "one two three four": 0.5, "one two three five six": 4.0, "one two": 1.0, "a b": -1.0}
REWARDS |= {"quite another thing": 4.6, "a  b": 3.0, "truth": 2.0}


def score(pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
    assert all(str(prompt).startswith("prompt of ") for prompt, _ in pairs)
    return [REWARDS[response] for _, response in pairs]


def test_reward_gap() -> None:
    assert kept(reward_gap(score)) == ["good", "small", "large", "space"]
    assert kept(reward_gap(score, eta1=1)) == ["good", "small", "space"]  # strictly below
    assert kept(reward_gap(score, eta2=3)) == ["good", "small", "large"]  # strictly above
    assert kept(reward_gap(score, eta3=3.5)) == ["good", "large", "space"]
    assert kept(reward_gap(score, 1, 3, 3.4)) == ["good", "small"]
    assert kept(reward_gap(score, 1, 3, 3.5)) == ["good"]


def test_the_ground_truth_stands_in_output() -> None:
    rows = [row("a", "a b", "one two three five six", output="truth"), row("b", "a b", "one two three five six")]
    assert kept(reward_gap(score, eta2=3), rows=rows) == ["b"]
    with pytest.raises(ValueError, match="row 'c': field 'output' is no text"):
        kept(reward_gap(score), rows=[row("c", "a b", "a", output=3)])


def test_bad_rewards() -> None:
    assert kept(reward_gap(lambda pairs: [nan] * len(pairs))) == ["good"]
    assert kept(reward_gap(lambda pairs: [0.0] * len(pairs), eta1=inf)) == ["good", "small", "large", "space"]
    with pytest.raises(ValueError, match="5 rewards for 6 responses"):
        kept(reward_gap(lambda pairs: [0.0] * (len(pairs) - 1)))


def test_an_unchanged_row_asks_no_reward() -> None:
    def never(pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        raise AssertionError

    assert kept(reward_gap(never, 1, 3, 3.5), rows=ROWS[:1]) == ["good"]


def test_reports() -> None:
    curation = Curation([field_is_one_of("annotator", ["anna", "bob"]), edit_ratio_within(high=0.5)])
    dropped: list[Dropped] = []
    assert [each.id for each in curation.keep(ROWS, dropped.append)] == ["good", "small"]
    assert [(each.row.id, each.why) for each in dropped] == [
        ("space", "no field 'annotator'"),
        ("large", "edit ratio 1.00"),
    ]
    assert [str(report) for report in curation.reports] == [
        "annotator is one of anna, bob: 3 of 4 kept",
        "edit ratio from 0 to 0.5: 2 of 3 kept",
    ]
    assert (curation.rows, curation.kept, curation.kept_unchanged) == (4, 2, 1)
    assert curation.as_dict() == {
        "rows": 4,
        "kept": 2,
        "kept_unchanged": 1,
        "filters": [
            {
                "name": "annotator is one of anna, bob",
                "rows": 4,
                "kept": 3,
                "dropped": [{"id": "space", "why": "no field 'annotator'"}],
            },
            {
                "name": "edit ratio from 0 to 0.5",
                "rows": 3,
                "kept": 2,
                "dropped": [{"id": "large", "why": "edit ratio 1.00"}],
            },
        ],
    }


def test_why() -> None:
    dropped: list[Dropped] = []
    for each in (
        reason_is_one_of(["unsafe"]),
        words_within("edited", high=4),
        reward_gap(score, eta1=1),
        changed_only(),
    ):
        list(Curation([each]).keep(ROWS, dropped.append))
    assert [f"{id}: {why}" for (id, *_), why in ((d.row.id.split(), d.why) for d in dropped)] == [
        "small: edited for wrong",
        "large: edited for style, missing",
        "space: no reason given",
        "small: 5 words in the edited text",
        "large: R(ŷ) = 1.00, R(y) = 4.60",
        "good: edited = original",
    ]


def test_examples_are_few_and_batches_many() -> None:
    rows = [row(str(k), "a b", "c" if k % 2 else "a b c") for k in range(2 * curate.BATCH_SIZE + 10)]
    batches: list[int] = []

    def counting(each: Sequence[Correction]) -> list[None]:
        batches.append(len(each))
        return [None] * len(each)

    curation = Curation([Filter("all", counting), edit_ratio_within(high=0.5)])
    assert [each.id for each in curation.keep(rows)] == [str(k) for k in range(0, len(rows), 2)]
    assert batches == [curate.BATCH_SIZE, curate.BATCH_SIZE, 10]
    assert [each.row.id for each in curation.reports[1].examples] == ["1", "3", "5"]


def test_rows_are_streamed() -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield row(str(taken), "a", "b c")

    stream = Curation([changed_only()]).keep(endless())
    assert next(stream).id == "1"
    assert taken == curate.BATCH_SIZE


@given(st.lists(pairs(), max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_each_row_is_kept_or_dropped(found: list[tuple[str, str]], one: float, other: float) -> None:
    low, high = sorted((one, other))
    rows = [row(str(k), a, b) for k, (a, b) in enumerate(found)]
    dropped: list[Dropped] = []
    curation = Curation([edit_ratio_within(low, high)])
    stay = [each.id for each in curation.keep(rows, dropped.append)]
    assert sorted([*stay, *(each.row.id for each in dropped)], key=int) == [each.id for each in rows]
    assert stay == [r.id for r in rows if r.original == r.edited or low <= edit_ratio(r.original, r.edited) <= high]
    assert (curation.reports[0].rows, curation.reports[0].kept) == (len(rows), len(stay))
