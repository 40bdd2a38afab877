"""Edit points by hand, and a model's choices at them against a slow twin."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from errata.edits import word_distance
from errata.models import load_causal
from errata.types import Correction
from errata.workflows.edit_points import EditPoint, RowChoices, choices_at, compare_choices, edit_points, figures_of

ENCODER = tiny.encoder()
IDS = dict(zip(tiny.WORDS, ENCODER.text_ids(" ".join(tiny.WORDS)), strict=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    return load_causal(tiny.llama(tmp_path_factory.mktemp("model"))).eval()


def row(original: str, edited: str) -> Correction:
    return Correction(id="a", prompt="say", original=original, edited=edited)


@pytest.mark.parametrize(
    ("original", "edited", "edits", "kept"),
    [
        # A substitute; and a deletion, which shows at the word that comes instead.
        ("red cat sits rude here", "red dog sits here", [(1, "cat", 1), (3, "rude", 1)], [(0, 1), (2, 3), (4, 5)]),
        # Two words for one are one edit point of two words.
        ("red cat sits", "red dog now sits", [(1, "cat", 2)], [(0, 1), (3, 4), (4, 5)]),
        # More at the end: the draft has its end there.
        ("red cat", "red cat now", [(2, "</s>", 1)], [(0, 1), (1, 2), (3, 4)]),
        # Less at the end: the end of what was sent is the edit point.
        ("red cat now here", "red cat", [(2, "now", 2)], [(0, 1), (1, 2)]),
        # Of equal words the last went: there the texts part.
        ("now now cat", "now cat", [(1, "now", 1)], [(0, 1), (2, 3)]),
        ("red cat", "red cat", [], [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_edit_points_by_hand(
    original: str, edited: str, edits: list[tuple[int, str, int]], kept: list[tuple[int, int]]
) -> None:
    ids = {**IDS, "</s>": ENCODER.end_id}
    found = edit_points(row(original, edited), ENCODER)
    assert found.edits == tuple(EditPoint(token, ids[drafted], words) for token, drafted, words in edits)
    assert found.kept == tuple(kept)


def test_a_draft_that_was_cut_has_nothing_where_it_stops() -> None:
    ids = ENCODER.text_ids("red cat")
    cut = Correction(id="a", prompt="say", original="red cat", edited="red cat now", original_ids=ids)
    assert edit_points(cut, ENCODER).edits == (EditPoint(2, None, 1),)


SENTENCES = st.lists(st.sampled_from(tiny.CLEAN), min_size=1, max_size=7).map(" ".join)


@given(SENTENCES, SENTENCES)
def test_every_changed_word_is_at_one_edit_point_and_no_kept_word_is(original: str, edited: str) -> None:
    found = edit_points(row(original, edited), ENCODER)
    assert sum(point.words for point in found.edits) == word_distance(original, edited)
    tokens = [point.token for point in found.edits]
    assert sorted(set(tokens)) == tokens
    assert not {token for span in found.kept for token in range(*span)} & set(tokens)
    assert all(found.encoded.response_ids[point.token] != point.drafted for point in found.edits)


@torch.no_grad()
def test_choices_are_those_of_the_slow_twin(model: torch.nn.Module) -> None:
    rows = [edit_points(one, ENCODER) for one in tiny.corrections(9, seed=3)]
    fast = choices_at(model, rows, ENCODER, batch_size=4)
    for points, found in zip(rows, fast, strict=True):
        ids, first = points.encoded.ids, points.encoded.prompt_length
        logprob = [
            model(torch.tensor([ids[:stop]])).logits[0, -1].double().log_softmax(-1) for stop in range(first, len(ids))
        ]
        agrees = [int(step.argmax()) == token for step, token in zip(logprob, ids[first:], strict=True)]
        margins = [
            float(logprob[point.token][ids[first + point.token]] - logprob[point.token][point.drafted])
            for point in points.edits
            if point.drafted is not None
        ]
        expected = RowChoices(
            id=points.id,
            points=len(points.edits),
            written=sum(agrees[point.token] for point in points.edits),
            preferred=sum(margin > 0 for margin in margins),
            rivals=len(margins),
            margin=pytest.approx(sum(margins), abs=1e-5),
            words=sum(point.words for point in points.edits),
            missed=sum(point.words for point in points.edits if not agrees[point.token]),
            kept=len(points.kept),
            otherwise=sum(not all(agrees[start:stop]) for start, stop in points.kept),
        )
        assert found == expected
    # The toy model knows some and not others, or this would compare nothing.
    assert 0 < sum(one.otherwise for one in fast) < sum(one.kept for one in fast)


def test_figures_are_sums_over_rows() -> None:
    one = RowChoices(
        id="a", points=2, written=1, preferred=2, rivals=2, margin=3.0, words=5, missed=4, kept=10, otherwise=1
    )
    none = RowChoices(
        id="b", points=0, written=0, preferred=0, rivals=0, margin=0.0, words=0, missed=0, kept=10, otherwise=4
    )
    found = figures_of([one, none])
    assert (found.rows, found.points, found.written, found.preferred, found.margin) == (2, 2, 0.5, 1.0, 1.5)
    assert (found.missed, found.otherwise, found.otherwise_share) == (2.0, 2.5, 0.25)
    assert figures_of([none]).written is None
    with pytest.raises(ValueError, match="no row"):
        figures_of([])


def test_two_models_are_compared_along_the_same_rows() -> None:
    def row(id: str, missed: int, otherwise: int) -> RowChoices:
        given = {"points": 2, "written": 0, "preferred": 0, "rivals": 0, "margin": 0.0, "words": 5, "kept": 10}
        return RowChoices(id=id, missed=missed, otherwise=otherwise, **given)

    old, new = [row("a", 5, 1), row("b", 4, 0)], [row("a", 1, 2), row("b", 4, 0)]
    found = compare_choices(new, old)
    assert (found.missed.difference.mean, found.otherwise.difference.mean) == (-2.0, 0.5)
    assert (found.old.missed, found.new.missed, found.new.wrong) == (4.5, 2.5, 3.5)
    assert (found.old.otherwise_share, found.new.otherwise_share) == (0.05, 0.1)
    with pytest.raises(ValueError, match="the same rows in the same order"):
        compare_choices(new, old[::-1])
