from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from errata.data import OnLong
from errata.labels import label_all
from errata.reward import (
    calibration_error,
    encode_pair,
    localisation,
    rank_correlation,
    readings,
    repetition,
    report_edits,
    report_preferences,
    report_samples,
    report_word_tags,
    word_lows,
)
from errata.types import Correction, Encoded, Preference

ENCODER = tiny.encoder()
IDS = dict(zip(tiny.WORDS, ENCODER.tokenizer.convert_tokens_to_ids(tiny.WORDS), strict=True))
EDITS = [
    Correction(id="a", prompt="say", original="rude cat", edited="cat", extra={"kind": "tone"}),
    Correction(id="b", prompt="say", original="red dog sits", edited="red cat sits now", extra={"kind": "fact"}),
    Correction(id="c", prompt="say", original="cat cat cat cat cat", edited="cat", extra={"kind": "fact"}),
    Correction(id="d", prompt="say", original="one two", edited="one two", extra={"kind": "none"}),
]
LABELS = list(label_all(EDITS, ENCODER))


def paying(**words: float) -> Any:
    table = {IDS[word]: value for word, value in words.items()}

    def reward(rows: Sequence[Encoded]) -> list[list[float]]:
        return [[table.get(token, 0.0) for token in row.response_ids] for row in rows]

    return reward


def test_calibration_by_hand() -> None:
    # Bins .1–.2: |.15 − 0|·1/4; .7–.8: |.75 + .75 − 1|/4; 1.0 falls into the last.
    assert calibration_error([0.15, 0.75, 0.75, 1.0], [0, 1, 0, 1]) == pytest.approx((0.15 + 0.5 + 0) / 4)
    assert calibration_error([0.5, 0.5], [1, 0]) == 0
    assert math.isnan(calibration_error([], []))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20), st.integers(1, 7))
def test_calibration_is_that_of_its_bins(rows: list[tuple[float, bool]], bins: int) -> None:
    slow = 0.0
    for k in range(bins):
        inside = [(p, came) for p, came in rows if min(int(p * bins), bins - 1) == k]
        if inside:
            slow += abs(sum(p for p, _ in inside) - sum(came for _, came in inside)) / len(rows)
    found = calibration_error([p for p, _ in rows], [float(came) for _, came in rows], bins)
    assert found == pytest.approx(slow, abs=1e-12)
    assert 0 <= found <= 1


def test_rank_correlation_and_repetition_by_hand() -> None:
    assert rank_correlation([1, 2, 3], [9, 5, -7]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(rank_correlation([1, 1], [1, 2]))
    assert repetition([5, 5, 5, 5]) == 0.5
    assert repetition([5, 6, 7, 8]) == repetition([5, 5]) == 0
    assert repetition([5, 6, 5, 6], n=2) == pytest.approx(1 / 3)


def test_a_report_on_edits_by_hand() -> None:
    found = report_edits(
        paying(rude=-1.0, now=-2.0, cat=0.5), LABELS, groups={row.id: row.extra["kind"] for row in EDITS}
    )
    # Gains: a 1; b .5 − 2 − 0; c .5 − 2.5. By mean: a .25 − (−.25 / …) > 0; b < 0; c .25 − 2.5/6 < 0.
    assert (found["rows"], found["unchanged"]) == (3, 1)
    assert found["pair_accuracy"] == pytest.approx(1 / 3)
    assert found["pair_accuracy_by_mean"] == pytest.approx(1 / 3)
    assert found["by subset"] == {"fact": {"pairs": 2, "accuracy": 0.0}, "tone": {"pairs": 1, "accuracy": 1.0}}
    # a: one deleted; b: dog, cat, now; c: four deleted.
    assert found["by changed tokens"] == {
        "1 to 2": {"pairs": 1, "accuracy": 1.0},
        "3 to 5": {"pairs": 2, "accuracy": 0.0},
    }
    p = [1 / (1 + math.exp(-gain)) for gain in (1.0, 1.5, 2.0)]
    # In bins .7–.8, .8–.9 and .8–.9: right, wrong, wrong.
    assert found["calibration_error"] == pytest.approx((1 - p[0] + p[1] + p[2]) / 3)
    # Sums −.5, 0, 2.5 of 3, 4 and 6 tokens; only the last repeats.
    assert found["length_correlation"] == pytest.approx(1)
    assert found["repetition_correlation"] == pytest.approx(3**0.5 / 2)


def test_single_tokens_in_the_report_are_those_of_localisation() -> None:
    reward = paying(rude=-1.0, dog=-0.5, now=-0.25, sits=-0.7)
    found = report_edits(reward, LABELS)
    assert (found["auc_bad_kept"], found["auc_bad_good"]) == localisation(reward, LABELS[:3])
    # Kept in the originals: cat, end; red, sits, end; cat, end. Deleted: rude, four cats. Substituted: dog.
    assert found["auc_deleted"] == pytest.approx((7 + 4 * (6 / 2)) / 35)
    assert found["auc_substituted"] == pytest.approx(6 / 7)
    assert found["auc_inserted"] == pytest.approx(1 / 7), "now is above sits alone"
    assert found["auc_good_kept"] == pytest.approx((1 + 1 + 6 / 2) / 14)
    assert found["kept_deviation"] < found["changed_deviation"]
    whole = report_edits(reward, LABELS, tokens=False)
    assert "auc_bad_kept" not in whole
    assert whole["pair_accuracy"] == found["pair_accuracy"]
    with pytest.raises(ValueError, match="nothing to measure"):
        report_edits(reward, LABELS[3:])


def test_levels_are_calibrated_where_good_and_bad_are_as_sure_as_they_are_right() -> None:
    sure = report_edits(paying(rude=-9.0, dog=-9.0, now=9.0), LABELS)
    # At reward 0 there are a good cat and four bad ones, for whom σ says one half; the other bins are exact.
    assert sure["token_calibration_error"] == pytest.approx((5 / 2 - 1) / 8, abs=1e-3)


def test_deleted_tokens_are_held_against_their_own_side() -> None:
    found = report_edits(lambda rows: [[float(len(row.response_ids))] * len(row.response_ids) for row in rows], LABELS)
    # Originals of 3, 4 and 6 tokens. Under rude at 3: 2 ties, 5 above; under each cat at 6: 2 ties.
    assert found["auc_deleted"] == pytest.approx((5 + 2 / 2 + 4 * 2 / 2) / 35)


def test_preferences_best_of_n_and_words() -> None:
    rows = [
        Preference(id="p", prompt="say", chosen="cat", rejected="rude dog sits"),
        Preference(id="q", prompt="say", chosen="rude", rejected="cat now"),
    ]
    pairs = [encode_pair(row, ENCODER) for row in rows]
    found = report_preferences(paying(rude=-1.0), pairs, ["x", "y"])
    assert found == {
        "preferences": 2,
        "preference_accuracy": 0.5,
        "preferences by subset": {"x": {"pairs": 1, "accuracy": 1.0}, "y": {"pairs": 1, "accuracy": 0.0}},
    }
    groups = [[one for pair in pairs for one in pair], [pairs[0][1]]]
    assert report_samples(paying(rude=-1.0, cat=1.0, now=1.0), groups, [[1.0, 2.0, 3.0, 7.0], [5.0]]) == {
        "prompts": 2,
        "best_of_n": (7 + 5) / 2,
        "random_of_n": (13 / 4 + 5) / 2,
        "oracle_of_n": (7 + 5) / 2,
    }
    for empty in (lambda: report_preferences(paying(), []), lambda: report_samples(paying(), [], [])):
        with pytest.raises(ValueError, match="no "):
            empty()


def test_words_against_gold_tags() -> None:
    assert word_lows("ab  c", [(0, 1), (1, 2), (2, 5)], [1.0, 2.0, 3.0]).tolist() == [1.0, math.inf, 3.0]
    tagged = [
        Correction(
            id="a", prompt="say", original="rude red cat", edited="cat", extra={"word_tags": ["BAD", "OK", "OK"]}
        )
    ]
    labels = list(label_all([*tagged, EDITS[1]], ENCODER))
    found = report_word_tags(paying(rude=-1.0, red=-1.0), [*tagged, EDITS[1]], labels)
    assert found == {"words": 3, "bad_words": 1, "words_without_reward": 0, "auc_words": 0.75}
    assert report_word_tags(paying(), EDITS, LABELS) == {}
    short = [
        Correction(id="a", prompt="say", original="rude red cat", edited="cat", extra={"word_tags": ["BAD", "OK"]})
    ]
    with pytest.raises(ValueError, match="'a' has 3 words and 2 word_tags"):
        report_word_tags(paying(), short, labels)


def test_a_token_that_ends_in_a_space_is_of_the_word_before_it() -> None:
    assert word_lows("cat dog", [(0, 4), (4, 7)], [-1.0, 2.0]).tolist() == [-1.0, 2.0]


def test_words_behind_the_cut_are_not_the_best_of_all() -> None:
    """A BAD word that no token stands for was above every OK word."""
    encoder = tiny.encoder()
    encoder.max_length, encoder.on_long = len(encoder.prompt_ids("say")) + 2, OnLong.TRUNCATE
    row = Correction(
        id="a", prompt="say", original="rude red cat", edited="cat", extra={"word_tags": ["BAD", "OK", "BAD"]}
    )
    found = report_word_tags(paying(rude=-1.0), [row], list(label_all([row], encoder)))
    assert found == {"words": 2, "bad_words": 1, "words_without_reward": 1, "auc_words": 1.0}


def test_each_figure_is_read_out() -> None:
    found = report_edits(paying(rude=-1.0), LABELS, groups=dict.fromkeys("abcd", "all"))
    lines = list(readings(found))
    assert ("by subset all", "pairs 3, accuracy 0.667", "") in lines
    assert all(reading for name, _, reading in lines if not name.startswith("by "))
