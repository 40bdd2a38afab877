from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from errata.data import corrections_from, json_records, records, tables, writing
from errata.data.rows import (
    iter_corrections,
    read_corrections,
    read_demonstrations,
    read_lines,
    read_preferences,
    read_prompts,
    write_lines,
    write_rows,
    writing_rows,
)
from errata.types import Correction, Demonstration, Preference, PromptRow

SHARED = Path(__file__).parents[3] / "shared" / "data"
FORMATS = ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"]
HARD = 'a\r\n\tb\x00 😀👩‍🚀 e\u0301 שלום\u200f \u2028\x85\x1c\ufeff "q", {x} '
TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": HARD}]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def correction_fields(**fields: Any) -> dict[str, Any]:
    return {"prompt": "p", "rejected": "one two", "chosen": "one"} | fields


# Round trips.


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new folder" / name
    prompts = [PromptRow(id="a", prompt=HARD, extra={"note": HARD, "n": 3}), PromptRow(id="é", prompt="")]
    demonstrations = [Demonstration(id="d", prompt="p", response=HARD, extra={"n": 1})]
    preferences = [Preference(id="1", prompt=TALK, chosen=HARD, rejected="", extra={"tags": ["OK", "BAD"]})]
    preferences += [
        Preference(id="2", prompt=TALK, chosen="a b", rejected="c", chosen_ids=(5, 6, 2), rejected_ids=()),
        Preference(id="3", prompt=TALK, chosen="a b", rejected="c", rejected_ids=(7,)),
    ]
    corrections = [
        Correction(id="x", prompt="", original=HARD, edited=HARD + "!", original_ids=(5, 0, 2), extra={"hter": 0.5}),
        Correction(id="y", prompt="p", original="", edited="new"),
        Correction(id="z", prompt="p", original="old", edited="", original_ids=()),
    ]
    write_rows(path, iter(prompts))
    assert read_prompts(path, empty_texts="keep") == prompts
    write_rows(path, demonstrations)
    assert read_demonstrations(path) == demonstrations
    write_rows(path, preferences)
    assert read_preferences(path, empty_texts="keep") == preferences
    write_rows(path, corrections)
    assert read_corrections(path, empty_texts="keep") == corrections
    assert [each.name for each in path.parent.iterdir()] == [name]


@given(st.text(), st.text(), st.text())
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, prompt: str, original: str, edited: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [Correction(id="r", prompt=prompt, original=original, edited=edited, extra={"note": original + edited})]
    for name in FORMATS:
        write_rows(folder / name, rows)
        assert read_corrections(folder / name, empty_texts="keep") == rows


def test_a_correction_on_file_is_a_preference_row(tmp_path: Path) -> None:
    row = Correction(id="x", prompt=TALK, original="bad one", edited="good", original_ids=(7,), extra={"k": None})
    write_rows(tmp_path / "rows.jsonl", [row])
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {
        "id": "x",
        "prompt": TALK,
        "rejected": [{"role": "assistant", "content": "bad one"}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected_ids": [7],
        "k": None,
    }
    (preference,) = read_preferences(tmp_path / "rows.jsonl")
    assert (preference.chosen, preference.rejected) == ("good", "bad one")


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [PromptRow(id="a", prompt="p")]
    for name in ("first.jsonl.gz", "other.jsonl.gz"):
        write_rows(tmp_path / name, rows)
    # Neither a time nor a name: bytes 4 to 8 of the header, and the flags in byte 3.
    assert (tmp_path / "first.jsonl.gz").read_bytes()[3:8] == bytes(5)
    assert (tmp_path / "first.jsonl.gz").read_bytes() == (tmp_path / "other.jsonl.gz").read_bytes()


def test_write_refuses(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [PromptRow(id="before", prompt="p")])
    twice = [PromptRow(id="a", prompt="p"), PromptRow(id="a", prompt="q")]
    with pytest.raises(ValueError, match=r"two rows have the id 'a'; make ids differ"):
        write_rows(path, twice)
    with pytest.raises(ValueError, match=r"row 'a': the extra fields \['prompt'\]"):
        write_rows(path, [PromptRow(id="a", prompt="p", extra={"prompt": "q"})])
    with pytest.raises(ValueError, match=r"row 'a' cannot be written as JSON: .*surrogates"):
        write_rows(path, [PromptRow(id="a", prompt="\ud83d")])
    with pytest.raises(ValueError, match=r"row 'a' cannot be written as JSON: .*Path"):
        write_rows(path, [PromptRow(id="a", prompt="p", extra={"path": path})])
    with pytest.raises(ValueError, match=r"format of .*rows.csv from its name; use .jsonl"):
        write_rows(tmp_path / "rows.csv", [PromptRow(id="a", prompt="p")])
    # What stood there stays.
    assert [row.id for row in read_prompts(path)] == ["before"]


@pytest.mark.parametrize("clash", [[1, "a"], [{"x": 1}, {"y": 2}], [{}, {}], [2**70, 1], ["\ud83d", ""]])
def test_parquet_refuses_what_it_would_change(tmp_path: Path, clash: list[Any]) -> None:
    rows = [PromptRow(id=str(k), prompt="p", extra={"note": value}) for k, value in enumerate(clash)]
    with pytest.raises(ValueError, match=r"rows.parquet: Parquet wants one type .*; write .jsonl"):
        write_rows(tmp_path / "rows.parquet", rows)
    assert not (tmp_path / "rows.parquet").exists()


def test_parquet_null_is_an_absent_field(tmp_path: Path) -> None:
    rows = [PromptRow(id="a", prompt="p", extra={"x": None, "y": 1}), PromptRow(id="b", prompt="p", extra={"z": "t"})]
    write_rows(tmp_path / "rows.parquet", rows)
    assert [row.extra for row in read_prompts(tmp_path / "rows.parquet")] == [{"y": 1}, {"z": "t"}]


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (lambda path: write_rows(path, [PromptRow(id="a", prompt="p")]), read_prompts):
        with pytest.raises(ValueError, match=r"pip install 'errata\[parquet\]'"):
            use(tmp_path / "rows.parquet")


# What is accepted.


@pytest.mark.parametrize("names", [("rejected", "chosen"), ("original", "edited"), ("draft", "sent")])
def test_names_of_the_two_texts(tmp_path: Path, names: tuple[str, str]) -> None:
    row = {"prompt": "p", names[0]: "one two", names[1]: "one", "hter": 0.5, "original_ids": [4, 2]}
    (found,) = read_corrections(lines(tmp_path / "rows.jsonl", row))
    assert found == Correction(
        id="row-1", prompt="p", original="one two", edited="one", original_ids=(4, 2), extra={"hter": 0.5}
    )


@pytest.mark.parametrize("names", [("rejected", "chosen"), ("original", "edited"), ("draft", "sent")])
def test_weights(tmp_path: Path, names: tuple[str, str]) -> None:
    row = {"prompt": "p", "draft": "one two", "sent": "one", f"{names[1]}_weights": [[0, 3, -0.5], [3, 3, 1]]}
    (found,) = read_corrections(lines(tmp_path / "rows.jsonl", row))
    assert found == Correction(
        id="row-1", prompt="p", original="one two", edited="one", edited_weights=((0, 3, -0.5), (3, 3, 1))
    )
    row = {"prompt": "p", "draft": "one two", "sent": "one", f"{names[0]}_weights": []}
    (found,) = read_corrections(lines(tmp_path / "rows.jsonl", row))
    assert (found.original_weights, found.edited_weights) == ((), None)


def test_half_a_second_pair_is_an_extra_field(tmp_path: Path) -> None:
    (found,) = read_corrections(lines(tmp_path / "rows.jsonl", correction_fields(original="o", edited=None)))
    assert found.original == "one two"
    assert found.extra == {"original": "o", "edited": None}


def test_conversations(tmp_path: Path) -> None:
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in ("yes", "no!"))
    path = lines(tmp_path / "rows.jsonl", {"prompt": TALK, "chosen": chosen, "rejected": rejected})
    (preference,) = read_preferences(path)
    assert preference == Preference(id="row-1", prompt=TALK, chosen="yes", rejected="no!")
    (correction,) = read_corrections(path)
    assert (correction.original, correction.edited) == ("no!", "yes")


@pytest.mark.parametrize("name", ["response", "completion"])
def test_demonstrations(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": "p", name: "yes"}, {"prompt": TALK, name: [{"role": "assistant", "content": "no!"}]}]
    found = read_demonstrations(lines(tmp_path / "rows.jsonl", *rows))
    assert [row.response for row in found] == ["yes", "no!"]
    with pytest.raises(ValueError, match=r"line 1: field '(response|completion)' is missing; add it"):
        read_demonstrations(lines(tmp_path / "rows.jsonl", {"prompt": "p"}))


def test_ids(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "id": 7}, {"prompt": "p"}, {"prompt": "p", "id": None}, {"prompt": "p", "id": "é"}]
    assert [row.id for row in read_prompts(lines(tmp_path / "rows.jsonl", *rows))] == ["7", "row-2", "row-3", "é"]


def test_blank_lines_at_the_end_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "p"}\r\n{"prompt": "a\xe2\x80\xa8b"}\n\n \r\n')
    assert [row.prompt for row in read_prompts(path)] == ["p", "a\u2028b"]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    hard = HARD.replace("\0", "")  # a cell of a table that holds NUL is damaged
    rows = [["prompt", "draft", "sent", "note"], ["p", hard, "one\r\ntwo", "3"], ["", "", "x" * 200_000, ""], []]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert read_corrections(path, empty_texts="keep") == [
        Correction(id="row-2", prompt="p", original=hard, edited="one\r\ntwo", extra={"note": "3"}),
        Correction(id="row-5", prompt="", original="", edited="x" * 200_000, extra={"note": ""}),
    ]


# What is refused.

BAD: list[tuple[str | bytes | dict[str, Any], str]] = [
    ("{oops", r"not JSON: .* at character 1; write one object"),
    ('{"prompt": "p", "rejected": "a", "cho', r"not JSON"),
    ("[1, 2]", r"not a JSON object but a list"),
    ("3", r"not a JSON object but a int"),
    ("[" * 100_000, r"not JSON that can be read: maximum recursion depth exceeded"),
    ('{"n": ' + "9" * 5000 + "}", r"not JSON that can be read: Exceeds the limit"),
    ("", r"the line is blank; take it out"),
    ("  \t", r"the line is blank"),
    (b'{"prompt": "\xff"}', r"not UTF-8 at byte 12; save the file as UTF-8"),
    (correction_fields(chosen="\ud83d"), r"field 'chosen' holds half of a surrogate pair; mend the text"),
    (correction_fields(note=["\ude00"]), r"field 'note' holds half of a surrogate pair"),
    ({"rejected": "a", "chosen": "b c"}, r"field 'prompt' is missing; add it, or an empty text"),
    (correction_fields(prompt=None), r"field 'prompt' is missing"),
    (correction_fields(prompt=3), r"field 'prompt' is neither a text nor a list of messages"),
    (correction_fields(prompt=[]), r"field 'prompt' is neither"),
    (correction_fields(prompt=[{"role": "user"}]), r"field 'prompt' is neither"),
    (correction_fields(prompt=[{"role": "user", "content": ["x"]}]), r"field 'prompt' is neither"),
    ({"prompt": "p", "rejected": "a"}, r"field 'chosen' is missing; add it"),
    ({"prompt": "p", "sent": "a"}, r"field 'draft' is missing"),
    ({"prompt": "p"}, r"field 'rejected' is missing"),
    (
        correction_fields(draft="a", sent="b"),
        r"fields \('rejected', 'chosen'\) and \('draft', 'sent'\) both .* keep one pair",
    ),
    (correction_fields(chosen=5), r"field 'chosen' is neither a text nor a list of one assistant message"),
    (correction_fields(chosen=[]), r"field 'chosen' is neither"),
    (correction_fields(chosen=[{"role": "user", "content": "x"}]), r"field 'chosen' is neither"),
    (correction_fields(rejected=[{"role": "assistant", "content": "x"}] * 2), r"field 'rejected' is neither"),
    (correction_fields(id=""), r"field 'id' is ''; give a text or a number"),
    (correction_fields(id=True), r"field 'id' is True"),
    (correction_fields(id=[1]), r"field 'id' is \[1\]"),
    (correction_fields(id="good"), r"field 'id': 'good' is the id of line 1 too; make ids differ"),
    (correction_fields(rejected_ids="1 2"), r"field 'rejected_ids' is not a list of token ids"),
    (correction_fields(rejected_ids=[1, -2]), r"field 'rejected_ids' is not"),
    (correction_fields(original_ids=[1.0]), r"field 'original_ids' is not"),
    (correction_fields(original_ids=[True]), r"field 'original_ids' is not"),
    *(
        (
            correction_fields(chosen_weights=weights),
            r"field 'chosen_weights' is not a list of \[start, stop, weight\]; give",
        )
        for weights in [
            1,
            "[[0, 1, 1]]",
            [[0, 1]],
            [0, 1, 1],
            [[0, 1, "1"]],
            [[0, 0.5, 1]],
            [[True, 1, 1]],
            [[0, math.nan, 1]],
        ]
    ),
    (
        correction_fields(rejected_weights=[], draft_weights=[]),
        r"fields \('rejected_weights', 'draft_weights'\) both hold the weights of one text; keep one",
    ),
    (correction_fields(original_ids=[1], rejected_ids=[1]), r"fields .* both hold the sampled ids; keep one"),
]


def as_bytes(row: str | bytes | dict[str, Any]) -> bytes:
    return row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else json.dumps(row).encode()


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row(tmp_path: Path, row: str | bytes | dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(map(as_bytes, [correction_fields(id="good"), row, correction_fields()])))
    expected = rf"rows.jsonl, line 2: {message}.*\(0 more unusable rows, 2 usable ones; mend the file"
    with pytest.raises(ValueError, match=expected):
        read_corrections(path)


def test_bad_rows_are_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, aside = tmp_path / "rows.jsonl", tmp_path / "aside.jsonl"
    rows = [correction_fields(id="good"), *(row for row, _ in BAD), correction_fields()]
    path.write_bytes(b"\n".join(map(as_bytes, rows)))
    assert [row.id for row in read_corrections(path, set_aside=aside)] == ["good", f"row-{len(rows)}"]
    kept = [json.loads(line) for _, line in read_lines(aside)]
    assert [row["line"] for row in kept] == list(range(2, len(rows)))
    assert kept[0]["raw"] == "{oops"
    assert kept[0]["error"].startswith("not JSON")
    assert [row["raw"] for row in kept if "not UTF-8" in row["error"]] == ['{"prompt": "\\xff"}']
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"{path}: {len(BAD)} of {len(rows)} rows set aside in {aside}; the first, line 2: not JSON")


def test_nothing_to_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aside = lines(tmp_path / "aside.jsonl", "from an earlier run")
    assert len(read_corrections(lines(tmp_path / "rows.jsonl", correction_fields()), set_aside=aside)) == 1
    assert aside.read_bytes() == b""
    assert capsys.readouterr().err == ""


def test_the_first_bad_row_counts_the_rest(tmp_path: Path) -> None:
    good = [{"prompt": text} for text in "pqr"]
    path = lines(tmp_path / "rows.jsonl", good[0], {"prompt": 1}, "{", *good[1:], {"a": 1})
    with pytest.raises(ValueError, match=r"line 2: field 'prompt' .* \(2 more unusable rows, 3 usable ones;"):
        read_prompts(path)


@pytest.mark.parametrize("content", ["", "\n\n", "{\n[]\n"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_no_usable_row(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=r"has no usable row; give it at least one"):
        read_prompts(path, set_aside=tmp_path / "aside.jsonl")


def test_set_aside_over_the_file_itself(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", {"prompt": "p"})
    with pytest.raises(ValueError, match=r"cannot take the rows set aside from itself"):
        read_prompts(path, set_aside=tmp_path / "x" / ".." / "rows.jsonl")
    assert path.read_text()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot tell the format of .*rows.txt"):
        read_prompts(tmp_path / "rows.txt")
    with pytest.raises(FileNotFoundError):
        read_prompts(tmp_path / "none.jsonl")
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"prompt": "p"}\n' * 9)[:-9])
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(b'{"prompt": "p"}\n')
    for path in (torn, plain):
        with pytest.raises(ValueError, match=r"is a damaged gzip file"):
            read_prompts(path)
    wrong = tmp_path / "wrong.parquet"
    wrong.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"wrong.parquet is not a Parquet file that can be read"):
        read_prompts(wrong)


def test_bad_rows_of_a_csv_file(tmp_path: Path) -> None:
    path, aside = tmp_path / "rows.csv", tmp_path / "aside.jsonl"
    path.write_bytes(b'prompt,id\nfine,a\nshort\na,b,c\n\n"x"y,z\n\xff,d\n"two\nlines",e\nlast,a\n"open,f\n')
    assert [(row.id, row.prompt) for row in read_prompts(path, set_aside=aside)] == [("a", "fine"), ("e", "two\nlines")]
    kept = [json.loads(line) for _, line in read_lines(aside)]
    assert [(row["line"], row["error"].split(";")[0]) for row in kept] == [
        (3, "1 cells and 2 columns"),
        (4, "3 cells and 2 columns"),
        (5, "the row is empty"),
        (6, "not CSV: ',' expected after '\"'"),
        (7, "not UTF-8"),
        (10, "field 'id': 'a' is the id of line 2 too"),
        (11, "not CSV: unexpected end of data"),
    ]
    assert kept[0]["raw"] == '["short"]'
    path.write_text("prompt,prompt\na,b\n")
    with pytest.raises(ValueError, match=r"line 1: two columns have the same name; rename one"):
        read_prompts(path)
    for header, message in ((b'"a"b,c\n', "not CSV: .*; mend the quotes"), (b"\xff,b\n", "not UTF-8")):
        path.write_bytes(header + b"x,y\n")
        with pytest.raises(ValueError, match=f"rows.csv, line 1: {message}"):
            read_prompts(path)


def test_two_csv_files_at_once(tmp_path: Path) -> None:
    """The limit of a field is the process's: one reader that ends must not cut the other one short."""
    long = "x" * 200_000
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"prompt,draft,sent\np,{long},y\np,{long},z\n")
    first, second = iter_corrections(tmp_path / "a.csv"), iter_corrections(tmp_path / "b.csv")
    next(first), next(second)
    assert len(list(first)) == len(list(second)) == 1


def test_bad_rows_of_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["p", None, ""], "id": ["a", "b", "c"]}), path)
    with pytest.raises(
        ValueError, match=r"line 2: field 'prompt' is missing; add it, or an empty text where there was none \(0 more"
    ):
        read_prompts(path)
    aside = tmp_path / "aside.jsonl"
    assert [row.id for row in read_prompts(path, set_aside=aside, empty_texts="keep")] == ["a", "c"]
    ((_, kept),) = read_lines(tmp_path / "aside.jsonl")
    assert json.loads(kept)["raw"] == '{"id": "b"}'
    parquet.write_table(pyarrow.table([["p"], ["q"]], names=["prompt", "prompt"]), path)
    with pytest.raises(ValueError, match=r"two columns have the same name; rename one"):
        read_prompts(path)


def test_write_lines_is_atomic(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_lines(path, [{"a": 1}])

    def broken() -> Any:
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(path, broken())
    assert list(read_lines(path)) == [(1, b'{"a": 1}\n')]


# Streams.


def test_reasons_and_answers_come_back(tmp_path: Path) -> None:
    found = [
        Correction(
            id="a", prompt=TALK, original="one", edited="one two", reasons=("style", "team's own"), extra={"k": 1}
        ),
        Correction(id="b", prompt=TALK, original="", edited="x", original_ids=(3,)),
        Correction(id="c", prompt=TALK, original="one", edited="x", original_weights=((0, 2, 1e-7), (3, 3, 0.1))),
        Correction(id="d", prompt=TALK, original="y", edited="x", edited_weights=((0, 1, -1e3),), original_weights=()),
    ]
    for name in FORMATS:
        write_rows(tmp_path / name, found)
        assert read_corrections(tmp_path / name, empty_texts="keep") == found
    assert json.loads(next(read_lines(tmp_path / "rows.jsonl"))[1])["reason"] == ["style", "team's own"]
    for name in ("reason", "chosen_weights"):
        row = Correction(id="a", prompt="p", original="", edited="", extra={name: "x"})
        with pytest.raises(ValueError, match=rf"row 'a': the extra fields \['{name}'\]"):
            write_rows(tmp_path / "rows.jsonl", [row])


def test_rows_come_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    path, aside = tmp_path / "rows.jsonl", lines(tmp_path / "aside.jsonl", "from an earlier run")
    lines(path, "{oops", *(correction_fields(id=f"{k}") for k in range(3)), "{")
    stream = iter_corrections(path, set_aside=aside)
    assert next(stream).id == "0"
    assert aside.read_text() == "from an earlier run\n"
    assert [row.id for row in stream] == ["1", "2"]
    assert [json.loads(line)["line"] for _, line in read_lines(aside)] == [1, 5]


def test_nothing_is_yielded_after_an_error(tmp_path: Path) -> None:
    stream = iter_corrections(lines(tmp_path / "rows.jsonl", correction_fields(), "{oops", *[correction_fields()] * 3))
    assert next(stream).id == "row-1"
    with pytest.raises(ValueError, match=r"line 2: not JSON.*\(0 more unusable rows, 4 usable ones"):
        next(stream)


@pytest.mark.parametrize("name", FORMATS)
def test_writing_yields_what_it_writes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_GROUP_ROWS", 2)
    path = tmp_path / name
    found = [Correction(id=f"{k}", prompt="p", original="a", edited="a b") for k in range(5)]
    stream = writing_rows(path, iter(found))
    assert next(stream) == found[0]
    stream.close()  # type: ignore[attr-defined]
    assert not path.exists()
    assert list(writing_rows(path, iter(found))) == found
    assert read_corrections(path) == found


def test_parquet_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_GROUP_ROWS", 2)
    monkeypatch.setattr(tables, "BATCH_ROWS", 3)
    path = tmp_path / "rows.parquet"
    found = [PromptRow(id=f"{k}", prompt=f"{k}", extra={"x": k} if k % 2 else {}) for k in range(7)]
    write_rows(path, found)
    assert parquet.ParquetFile(path).num_row_groups == 4
    assert read_prompts(path) == found
    for late in ({"x": "text"}, {"y": 1}, {"x": 2**70}, {"x": 0.5}):
        with pytest.raises(ValueError, match=r"Parquet wants one type for each field \(.*\); write .jsonl"):
            write_rows(path, [*found, PromptRow(id="late", prompt="p", extra=late)])
    with pytest.raises(ValueError, match=r"two rows have the id '1'; make ids differ"):
        write_rows(path, [*found, found[1]])
    assert read_prompts(path) == found


@pytest.mark.parametrize("name", FORMATS)
def test_no_rows(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, [])
    with pytest.raises(ValueError, match=r"has no usable row"):
        read_prompts(tmp_path / name)


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    text = "one two three " * 50

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            file.writelines(
                json.dumps({"prompt": text, "draft": f"{k} {text}", "sent": text}) + "\n{}\n" for k in range(count)
            )
        tracemalloc.start()
        try:
            stream = iter_corrections(path, set_aside=tmp_path / "aside.jsonl")
            assert sum(1 for _ in writing_rows(tmp_path / "out.jsonl.gz", stream)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(1000) < peak(100) + 50_000  # a thousand of these rows are two million characters


# A JSON array.


def elements(text: str, chunk: int) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "_CHUNK", chunk)
        yield from json_records.json_elements(io.StringIO(text).read)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
nested = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.lists(nested, max_size=5), st.sampled_from([None, 0, 3]), st.integers(1, 9), st.booleans())
def test_an_array_by_chunks_is_the_array_at_once(
    values: list[Any], indent: int | None, chunk: int, ascii: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii)
    found = list(elements(f" \r\n{text}\n\t", chunk))
    assert [value for value, _ in found] == values
    assert [json.loads(part) for _, part in found] == values


@pytest.mark.parametrize("chunk", [1, 2, 1000])
@pytest.mark.parametrize(
    "text", ["", "{}", "[", "[{}", "[{},", "[{},]", "[,{}]", "[{} {}]", "[{}] [", '[{"a": 1]', "[1", "[12 3]", "[tru]"]
)
def test_a_broken_array(text: str, chunk: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the reader of the file says what
        list(elements(text, chunk))


def test_a_json_array(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([correction_fields(id="a"), 3, correction_fields(chosen="\ud83d"), correction_fields()]))
    assert [row.id for row in read_corrections(path, set_aside=tmp_path / "aside.jsonl")] == ["a", "row-4"]
    kept = [json.loads(line) for _, line in read_lines(tmp_path / "aside.jsonl")]
    assert [(row["line"], row["error"].split(";")[0]) for row in kept] == [
        (2, "not a JSON object but a int"),
        (3, "field 'chosen' holds half of a surrogate pair"),
    ]
    assert kept[0]["raw"] == "3"
    for content in (b'[{"prompt": "p"}, {"pro', b'[{"prompt": "p"}, {"prompt": "\xff"}]', b"[{}, " + b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"rows.json is not a JSON array of rows, or is damaged after row"):
            read_prompts(path, set_aside=tmp_path / "aside.jsonl")


# Data sets.


def test_a_saved_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BATCH_ROWS", 2)
    found = [
        {"id": "a", "prompt": TALK, "rejected": "no!", "chosen": "yes", "n": 1},
        {"id": "b", "prompt": TALK[:1], "rejected": "one two", "chosen": "one", "n": None},
        {"id": None, "prompt": TALK, "rejected": None, "chosen": "x", "n": 3},
    ]
    made = datasets.Dataset.from_list(found)
    made.with_format("numpy").save_to_disk(str(tmp_path / "made"))
    expected = [
        Correction(id="a", prompt=TALK, original="no!", edited="yes", extra={"n": 1}),
        Correction(id="b", prompt=TALK[:1], original="one two", edited="one"),
    ]
    assert read_corrections(tmp_path / "made", set_aside=tmp_path / "aside.jsonl") == expected
    ((_, kept),) = read_lines(tmp_path / "aside.jsonl")
    assert json.loads(kept)["line"] == 3
    assert list(corrections_from(made, set_aside=tmp_path / "aside.jsonl")) == expected


def test_folders_that_are_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"is a folder that no Dataset.save_to_disk wrote; name a file"):
        read_prompts(tmp_path)
    splits = datasets.DatasetDict({name: datasets.Dataset.from_dict({"prompt": [name]}) for name in ("train", "test")})
    splits.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(ValueError, match=r"holds the splits test, train; name the folder of one of them"):
        read_prompts(tmp_path / "both")
    assert [row.prompt for row in read_prompts(tmp_path / "both" / "train")] == ["train"]
    (tmp_path / "both" / "test" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"test is not a data set that can be read: KeyError.*; save it again"):
        read_prompts(tmp_path / "both" / "test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'errata\[datasets\]'"):
        read_prompts(tmp_path / "both" / "train")


# Real files.


@pytest.mark.parametrize(
    ("name", "read", "count"),
    [
        ("iterater_train", read_corrections, 3252),
        ("fgrlhf_edits_spans", read_corrections, 300),
        ("hh_harmless_test_first1000", read_preferences, 1000),
    ],
)
def test_shared_data(tmp_path: Path, name: str, read: Callable[..., list[Any]], count: int) -> None:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    rows = read(path, empty_texts="keep")
    assert len(rows) == count
    write_rows(tmp_path / "rows.jsonl.gz", rows)
    assert read(tmp_path / "rows.jsonl.gz", empty_texts="keep") == rows
