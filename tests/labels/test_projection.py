from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edits.table import distance_by_table
from edits.tokenizers import byte_level, every_tokenizer, metaspace, pairs, texts
from errata.data import Encoder
from errata.edits import diff
from errata.labels import LabelCounts, LabelRules, changed, count_labels, label, label_all, project, project_weights
from errata.labels.projection import project_all
from errata.types import Correction, Encoded, Label, LabeledTokens, Op, Span, Ties, TokenLabels, Unit, WeightSpan

K, N, D, S, M, X = Label  # N for new: INSERTED; M for missing: OMISSION; X: IGNORED


def correction(original: str, edited: str, **more: Any) -> Correction:
    return Correction(id="r", prompt="Ask", original=original, edited=edited, **more)


def pieces(side: LabeledTokens) -> list[tuple[str, str]]:
    """Each response token's characters and the first letter of its label."""
    spans = zip(side.encoded.offsets, side.labels, strict=True)
    return [(side.text[start:stop], Label(name).name[0]) for (start, stop), name in spans]


def project_by_loop(changes: dict[int, Label], text: str, encoded: Encoded) -> list[Label]:
    """The rule of ``project``, one token after the other."""
    labels = []
    for start, stop in encoded.offsets:
        own = range(start, stop) if stop > start else range(start, min(start + 1, len(text)))
        solid = [k for k in own if not text[k].isspace()]
        seen = {changes[k] for k in solid or own if k in changes}
        labels.append(S if S in seen else seen.pop() if seen else K)
    return labels


def changes_of(original: str, edited: str, unit: str, ties: Ties) -> tuple[dict[int, Label], dict[int, Label]]:
    sides: tuple[dict[int, Label], dict[int, Label]] = ({}, {})
    for edit in diff(original, edited, unit, ties=ties):
        if edit.op is not Op.KEEP:
            name = {Op.INSERT: N, Op.DELETE: D, Op.SUBSTITUTE: S}[edit.op]
            sides[0].update(dict.fromkeys(range(edit.original.start, edit.original.stop), name))
            sides[1].update(dict.fromkeys(range(edit.edited.start, edit.edited.stop), name))
    return sides


def test_golden_words() -> None:
    row = label(correction("The bad cat sat at nine.", "The cat sat on it at ten!"), Encoder(metaspace()))
    joined = ["".join(text for text, name in pieces(side) if name != "K") for side in (row.original, row.edited)]
    assert joined == [" bad nine.", " on it ten!"]
    names = ["".join(dict.fromkeys(name for _, name in pieces(side))) for side in (row.original, row.edited)]
    assert names == ["KDS", "KIS"]
    assert pieces(row.original)[-1] == pieces(row.edited)[-1] == ("", "K")


def test_golden_tokens() -> None:
    encoder = Encoder(byte_level())
    row = label(correction("The cat on 😀", "The cat 😁"), encoder, LabelRules(unit="token"))
    # 😀 and 😁 differ in the last of four bytes, and ids are what is compared.
    assert pieces(row.original) == [
        *[("The", "K"), (" cat", "K"), (" on", "D"), (" ", "K")],
        *[("😀", "K"), ("😀", "K"), ("😀", "K"), ("😀", "S")],
        ("", "K"),
    ]
    assert [name for _, name in pieces(row.edited)] == list("KKKKKKSK")
    by_word = label(correction("The cat 😀", "The cat, 😁"), encoder)
    assert [name for _, name in pieces(by_word.original)] == list("KKKSSSSK")
    assert [name for _, name in pieces(by_word.edited)] == list("KKIKSSSSK")


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], (K, K, K, K, K)),
        ([(0, 3, D)], (D, K, K, K, K)),
        ([(3, 4, D)], (K, K, K, K, K)),  # the space of " cat" alone does not change it
        ([(3, 5, D)], (K, D, K, K, K)),
        ([(7, 8, N)], (K, K, N, K, K)),  # half of a token of white space
        ([(4, 5, N), (6, 7, S)], (K, S, K, K, K)),
        ([(4, 5, S), (6, 7, N)], (K, S, K, K, K)),
        ([(9, 10, S)], (K, K, K, S, K)),
        ([(10, 10, D)], (K, K, K, K, K)),
        ([(0, 10, N)], (N, N, N, N, K)),
    ],
)
def test_project_golden(spans: list[tuple[int, int, Label]], expected: tuple[Label, ...]) -> None:
    text = "The cat\r\n!"
    encoded = Encoded((5, 6, 7, 8, 9, 10, 2), 2, ((0, 3), (3, 7), (7, 9), (9, 10), (10, 10)), True)
    named = [(Span(start, stop, text[start:stop]), name) for start, stop, name in spans]
    assert project(named, text, encoded) == expected


@pytest.mark.parametrize("space", [" ", "\x1c", "\xa0", "\u2028", "\u3000"])
def test_every_white_space_is_white_space(space: str) -> None:
    encoded = Encoded((1, 1, 2), 0, ((0, 1), (1, 3), (3, 3)), True)
    assert project([(Span(1, 2, space), S)], f"x{space}y", encoded) == (K, K, K)


def test_pieces_of_one_character_share_its_label() -> None:
    encoded = Encoded((1, 1, 1, 1, 1), 0, ((0, 1), (1, 2), (1, 2), (2, 2), (2, 3)), False)
    assert project([(Span(1, 2, "😀"), D)], "a😀b", encoded) == (K, D, D, K, K)
    assert project([(Span(2, 3, "b"), D)], "a😀b", encoded) == (K, K, K, D, D)
    assert project([(Span(0, 1, "\u3000"), S)], "\u3000", Encoded((1, 2), 0, ((0, 1), (1, 1)), True)) == (S, K)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], (0, 0, 0, 0, 0)),
        ([(0, 3, -0.5)], (-0.5, 0, 0, 0, 0)),
        ([(3, 4, 1e3)], (0, 0, 0, 0, 0)),  # the space of " cat" alone
        ([(2, 5, 1e-7)], (1e-7, 1e-7, 0, 0, 0)),
        ([(7, 8, 2)], (0, 0, 2, 0, 0)),  # half of a token of white space
        ([(0, 10, 1)], (1, 1, 1, 1, 0)),  # the text, and not its end
        ([(10, 10, -3)], (0, 0, 0, 0, -3)),
        ([(4, 5, 1), (6, 7, -2)], (0, -2, 0, 0, 0)),  # the largest in size, in any order
        ([(6, 7, -2), (4, 5, 1)], (0, -2, 0, 0, 0)),
        ([(0, 10, 1), (0, 2, -1)], (-1, 1, 1, 1, 0)),  # of two of one size the later
        ([(0, 2, -1), (0, 10, 1)], (1, 1, 1, 1, 0)),
        ([(0, 10, 1), (4, 7, 0)], (1, 1, 1, 1, 0)),  # 0 takes no weight away
    ],
)
def test_project_weights_golden(spans: list[WeightSpan], expected: tuple[float, ...]) -> None:
    text = "The cat\r\n!"
    encoded = Encoded((5, 6, 7, 8, 9, 10, 2), 2, ((0, 3), (3, 7), (7, 9), (9, 10), (10, 10)), True)
    assert project_weights(spans, text, encoded) == expected
    cut_off = Encoded((5, 6, 7, 8), 2, ((0, 3), (3, 7)), False, 3)
    assert project_weights(spans, text, cut_off) == expected[:2]


def test_more_weights_than_a_byte_counts() -> None:
    """As a language model gives them, one for each word."""
    text = "ab" * 300
    offsets = (*((k, k + 2) for k in range(0, 600, 2)), (600, 600))
    spans = [(k, k + 2, k / 100 - 3) for k in range(0, 600, 2)]
    encoded = Encoded((1,) * 301, 0, offsets, True)
    assert project_weights(spans, text, encoded) == (*(weight for _, _, weight in spans), 0)


@pytest.mark.parametrize("span", [(-1, 2), (0, 4), (2, 1), (1, 1), (4, 4), (0, 0)])
def test_no_span_of_the_text(span: tuple[int, int]) -> None:
    encoded = Encoded((1, 2), 0, ((0, 3), (3, 3)), True)
    with pytest.raises(ValueError, match=rf"\[{span[0]}, {span[1]}\] is no span of a text of 3 characters; count"):
        project_weights([(*span, 1.0)], "cat", encoded)
    assert project_weights([(0, 0, 1.0)], "", Encoded((2,), 0, ((0, 0),), True)) == (1.0,), "an empty text has an end"


@every_tokenizer
@given(text=texts, data=st.data())
def test_weights_reach_the_tokens_that_touch_their_span(tokenizer_of: Any, text: str, data: st.DataObject) -> None:
    places = st.integers(0, len(text))
    pairs_of_places = st.tuples(places, places).map(sorted).filter(lambda p: p[0] < p[1] or p[0] == len(text))
    weights = st.sampled_from([-1e3, -1.0, -1e-7, 0.0, 0.5, 1.0])
    spans = [(*p, w) for p, w in data.draw(st.lists(st.tuples(pairs_of_places, weights), max_size=5))]
    encoded = Encoder(tokenizer_of()).encode("Ask", text)

    def rank(character: int) -> tuple[float, int]:
        covering = [k for k, (start, stop, _) in enumerate(spans) if start <= character < max(stop, start + 1)]
        return max(((abs(spans[k][2]), k) for k in covering), default=(0.0, -1))

    expected = []
    for start, stop in encoded.offsets:
        characters = range(start, max(stop, start + 1))
        solid = [k for k in characters if k < len(text) and not text[k].isspace()]
        best = max(rank(k) for k in solid or characters)[1]
        expected.append(spans[best][2] if best >= 0 else 0.0)
    assert project_weights(spans, text, encoded) == tuple(expected)


@every_tokenizer
@given(pair=pairs(), unit=st.sampled_from(["word", "char", "phrase"]), ties=st.sampled_from(Ties))
@example(pair=("", ""), unit="word", ties=Ties.TAGGER)
@example(pair=("", "new  "), unit="word", ties=Ties.TAGGER)
@example(pair=("a\r\n\tb", "a b"), unit="word", ties=Ties.TAGGER)
def test_labels_cover_exactly_the_edited_characters(
    tokenizer_of: Any, pair: tuple[str, str], unit: str, ties: Ties
) -> None:
    row = label(correction(*pair), Encoder(tokenizer_of()), LabelRules(unit=unit, ties=ties))
    for side, text, changes in zip((row.original, row.edited), pair, changes_of(*pair, unit, ties), strict=True):
        assert side.text == text
        assert len(side.labels) == len(side.encoded.offsets) == len(side.encoded.response_ids)
        assert list(side.labels) == project_by_loop(changes, text, side.encoded)
        covered = {
            k
            for (start, stop), is_changed in zip(side.encoded.offsets, changed(side.labels), strict=True)
            if is_changed
            for k in range(start, stop)
        }
        assert {k for k in changes if not text[k].isspace()} <= covered
        assert side.labels[-1] == K
    assert {*row.original.labels} <= {K, D, S, X}
    assert {*row.edited.labels} <= {K, N, S}


@every_tokenizer
@given(pair=pairs())
def test_token_labels_are_a_minimal_alignment(tokenizer_of: Any, pair: tuple[str, str]) -> None:
    row = label(correction(*pair), Encoder(tokenizer_of()), LabelRules(unit=Unit.TOKEN))
    original, edited = (side.encoded.response_ids[:-1] for side in (row.original, row.edited))
    kept = [
        [token for token, name in zip(side.encoded.response_ids, side.labels, strict=True) if name == K]
        for side in (row.original, row.edited)
    ]
    assert kept[0] == kept[1]
    substituted = row.original.labels.count(S)
    assert substituted == row.edited.labels.count(S)
    cost = row.original.labels.count(D) + row.edited.labels.count(N) + substituted
    assert cost == distance_by_table(original, edited)


def test_sampled_ids_are_kept() -> None:
    encoder = Encoder(byte_level())
    spelled = encoder.tokenizer.convert_tokens_to_ids(["T", "h", "e", "Ġ", "c", "a", "t"])
    whole = encoder.encode("Ask", "The cat").response_ids
    assert len(whole) < len(spelled)
    row = correction("The cat", "The cat sat", original_ids=(*spelled, encoder.end_id))
    for unit in Unit:
        sides = label(row, encoder, LabelRules(unit=unit))
        assert sides.original.encoded.response_ids == (*spelled, encoder.end_id)
        assert sides.original.encoded.ended
    assert not any(changed(label(row, encoder).original.labels))
    # The same text in other pieces: other ids, so to the papers' alignment another text.
    assert any(changed(label(row, encoder, LabelRules(unit="token")).original.labels))
    truncated = label(
        correction("The cat", "The cat sat", original_ids=tuple(spelled)), encoder, LabelRules(unit="token")
    )
    assert not truncated.original.encoded.ended
    assert truncated.edited.labels[-1] == K
    assert len(truncated.original.labels) == len(spelled)


def test_a_truncated_original_is_aligned_to_its_last_token() -> None:
    encoder = Encoder(byte_level())
    ids = encoder.encode("Ask", "The cat sat", ended=False).response_ids
    row = label(correction("The cat sat", "The cat eats", original_ids=ids), encoder, LabelRules(unit="token"))
    assert pieces(row.original)[-1] == (" sat", "S")


def test_errors_name_the_row() -> None:
    encoder = Encoder(byte_level())
    with pytest.raises(ValueError, match=r"row 'r': the sampled ids do not decode"):
        label(correction("cat", "mat", original_ids=(5,)), encoder)
    with pytest.raises(ValueError, match=r"unknown unit 'tokens'; use one of word, phrase, char, token"):
        label(correction("cat", "mat"), encoder, LabelRules(unit="tokens"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"original_weights": ((0, 3, -0.5),)}, r"original weights: weight -0.5 is below zero: .* without its sign"),
        ({"original_weights": ((0, 4, 0.5),)}, r"original weights: \[0, 4\] is no span of a text of 3 characters"),
        ({"edited_weights": ((0, 3, float("nan")),)}, r"edited weights: weight nan is no number of at most 1,000,000"),
        ({"edited_weights": ((0, 3, 1.0), (0, 5, 1.0))}, r"edited weights: \[0, 5\] is no span"),
    ],
)
def test_weights_that_cannot_be_used_name_row_and_side(weights: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"row 'r': {message}"):
        label(correction("cat", "mat", **weights), Encoder(byte_level()))
    fine = correction("cat", "mat", edited_weights=((0, 3, -0.5),), original_weights=((0, 3, 0.5),))
    assert label(fine, Encoder(byte_level())).edited.weights is not None
    refused = list[str]()
    rows = [fine, correction("cat", "mat", **weights), fine]
    found = list(label_all(rows, Encoder(byte_level()), on_error=lambda row, error: refused.append(str(error))))
    assert (len(found), len(refused)) == (2, 1), "its neighbours are labelled"


@pytest.mark.parametrize("unit", ["word", "phrase", "char", "token"])
def test_weights_do_not_depend_on_the_rules(unit: str) -> None:
    row = correction("The cat sat", "The cat eats", edited_weights=((4, 7, -0.5), (12, 12, 2.0)))
    labels = label(row, Encoder(byte_level()), LabelRules(unit=unit, omissions="blame"))
    assert labels.original.weights is None
    texts = [labels.edited.text[start:stop] for start, stop in labels.edited.encoded.offsets]
    assert dict(zip(texts, labels.edited.weights or (), strict=True)) == {
        **dict.fromkeys(texts, 0.0),
        " cat": -0.5,
        "": 2.0,
    }


def test_ignored_tokens_are_no_change() -> None:
    encoder = Encoder(byte_level())
    rows = [label(correction("<think>a</think> b", "<think>a</think> b"), encoder)]
    counts = count_labels(rows)
    assert counts.rows_unchanged == 1
    assert counts.original_ignored == counts.edited_ignored == rows[0].original.labels.count(X) > 0
    assert f"{counts.edited_ignored} ignored" in str(counts)
    both = count_labels([*rows, label(correction("a", "b"), encoder)])
    assert both == counts + count_labels([label(correction("a", "b"), encoder)])
    assert (both.rows, both.rows_unchanged) == (2, 1)


def test_label_all_and_counts() -> None:
    encoder = Encoder(byte_level())
    rows = [correction("The bad cat", "The cat"), correction("The cat.", "The mat."), correction("a", "a")]
    labels = list(label_all(iter(rows), encoder, LabelRules(unit="word")))
    assert labels == [label(row, encoder) for row in rows]
    counts = count_labels(iter(labels))
    names = (
        np.concatenate([row.original.labels for row in labels]),
        np.concatenate([row.edited.labels for row in labels]),
    )
    assert counts == LabelCounts(
        rows=3,
        rows_unchanged=1,
        original_kept=int((names[0] == K).sum()),
        original_deleted=int((names[0] == D).sum()),
        original_substituted=int((names[0] == S).sum()),
        edited_kept=int((names[1] == K).sum()),
        edited_inserted=0,
        edited_substituted=int((names[1] == S).sum()),
    )
    assert counts.original_deleted > 0
    assert counts.original_substituted > 0
    assert counts.edited_substituted > 0


def test_counts_by_hand() -> None:
    def side(*labels: Label) -> LabeledTokens:
        return LabeledTokens(Encoded((1,) * len(labels), 0, (), False), labels, "")

    rows = [
        TokenLabels(id="a", original=side(K, D, D, S), edited=side(N, S, K, K, K, N, N)),
        TokenLabels(id="b", original=side(K), edited=side(N, K)),
        TokenLabels(id="c", original=side(D, K), edited=side(K)),
        TokenLabels(id="d", original=side(K, K), edited=side()),
    ]
    assert count_labels(rows) == LabelCounts(
        rows=4,
        rows_unchanged=1,
        original_kept=5,
        original_deleted=3,
        original_substituted=1,
        edited_kept=5,
        edited_inserted=4,
        edited_substituted=1,
    )
    assert count_labels([]).rows == 0


def test_what_was_cut_off_one_text_is_no_hole_before_the_next() -> None:
    changes = np.array([0, 3, 3, 0, 2, 0, 0], np.int8)
    assert project_all(changes, "abc\nxy\n", [[(0, 2)], [(0, 1), (1, 2)]], [0, 4]).tolist() == [3, 2, 0]
    with pytest.raises(ValueError, match=r"no token stands for 'x'"):
        project_all(changes, "abc\nxy\n", [[(0, 2)], [(1, 2)]], [0, 4])
