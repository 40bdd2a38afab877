"""Files as teams have them: separators, encodings, headers, other names, spreadsheets, empty cells, damaged rows."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from errata.data import (
    FORMATS,
    corrections_from,
    iter_corrections,
    read_corrections,
    read_demonstrations,
    read_preferences,
    read_prompts,
    recognise_file,
    write_rows,
)
from errata.data import tables as tables_module
from errata.data.columns import AFTER, BEFORE, PROMPT
from errata.data.sniff import encoding_of

TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Is it safe?"}]
TEXTS = ("Schöne Grüße", "Hallo Änna – 5 €", "Hallo „Anna“, à bientôt")


def texts(path: Path, **how: Any) -> list[tuple[Any, str, str]]:
    return [(row.prompt, row.original, row.edited) for row in read_corrections(path, **how)]


def table(separator: str, *, header: str = "prompt,draft,sent", end: str = "") -> str:
    rows = [header.replace(",", separator), separator.join(f'"{text}"' for text in TEXTS)]
    return "".join(f"{row}{end}\r\n" for row in rows)


def aside_of(path: Path) -> list[tuple[int, str]]:
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["line"], row["error"].split(";")[0]) for row in kept]


# How a table is written.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_encodings(
    tmp_path: Path, separator: str, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(table(separator).encode(encoding))
    assert texts(path) == [TEXTS]
    told = capsys.readouterr().err
    if separator == "," and encoding in ("utf-8", "utf-8-sig"):
        assert told == ""
    else:
        shown = "tab" if separator == "\t" else repr(separator)
        named = "" if encoding.startswith("utf-8") else f"encoding {encoding}; "
        assert told == f"{path}: separator {shown}; {named}3 columns: prompt, draft, sent\n"


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", ["log.tsv", "log.csv", "log.csv.gz", "log.tsv.gz"])
def test_tsv_and_gzip(tmp_path: Path, name: str, pack: bool) -> None:
    path = tmp_path / name
    data = table("\t").encode()
    path.write_bytes(gzip.compress(data) if pack or name.endswith(".gz") else data)
    assert texts(path) == [TEXTS]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nprompt;draft;sent\r\np;a;b\r\n",
        "\n;;\nprompt;draft;sent\np;a;b\n",
        "Prompt,Draft,SENT\np,a,b\n",
        " prompt , draft , sent \np,a,b\n",
        "prompt, draft, sent\np, a, b\n",
        "prompt,draft,sent,,\np,a,b,,\n",
        ",prompt,draft,sent\n0,p,a,b\n",
        "prompt;draft;sent;note\np;a;b;1,5 and 2,5\n",
    ],
)
def test_headers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert texts(path) == [("p", "a", "b")]


def test_spaces_are_the_texts_where_not_every_cell_begins_with_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("prompt, draft, sent\np, a, b\nq, a,b\n")
    assert texts(path) == [("p", " a", " b"), ("q", " a", "b")]


def test_a_cell_under_no_name_is_no_text_of_another_column(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("prompt,draft,sent,,\np,a,b,c,\np,a,b,,\np,a,b,,,\n")
    assert len(texts(path, set_aside=tmp_path / "aside.jsonl")) == 1
    assert aside_of(tmp_path / "aside.jsonl") == [
        (2, "['c', ''] stands in columns without a name"),
        (4, "6 cells and 3 columns"),
    ]


def test_two_separators_that_are_as_likely(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,b;c\n1,2;3\n")
    with pytest.raises(
        ValueError, match=r"log.csv: two separators are as likely \(',' gives 'a', 'b;c'; .*--delimiter"
    ):
        read_prompts(path)
    assert [row.prompt for row in read_prompts(path, delimiter=";", columns={"prompt": "c"})] == ["3"]
    with pytest.raises(ValueError, match=r"--delimiter 'ab' is not one character"):
        read_prompts(path, delimiter="ab")


def test_names_of_columns_speak_for_a_separator(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("prompt,draft;first,sent\np,a;x,b\n")
    with pytest.raises(ValueError, match=r"columns are 'prompt', 'draft;first', 'sent'"):
        texts(path)


@pytest.mark.parametrize("text", ["Привет, мир", "zażółć gęślą jaźń", "caf\x8e"])
def test_an_encoding_that_is_not_western_is_not_guessed(tmp_path: Path, text: str) -> None:
    encoding = "latin-1" if text.startswith("caf") else "cp1251" if text[0] == "П" else "cp1250"
    path = tmp_path / "log.csv"
    path.write_bytes(f'prompt,draft,sent\n"{text}",a,b\np,a,c\n'.encode(encoding))
    with pytest.raises(ValueError, match=r"line 2: not UTF-8; save the file as UTF-8, or say its --encoding"):
        read_corrections(path)
    assert texts(path, encoding=encoding)[0] == (text, "a", "b")
    with pytest.raises(ValueError, match=r"--encoding utf-9: no encoding of that name"):
        read_corrections(path, encoding="utf-9")


def test_zeros_that_are_no_utf_16() -> None:
    assert encoding_of(b"prompt,draft\n\0\0\0\0\0\0,b\n") == "utf-8-sig"


# JSON under other names.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("suffix", ["json", "jsonl", "json.gz", "jsonl.gz", "ndjson"])
@pytest.mark.parametrize("shape", ["lines", "array", "pretty array", "pretty objects", "pretty object"])
def test_json(tmp_path: Path, shape: str, suffix: str, encoding: str) -> None:
    rows = [{"prompt": TALK, "draft": "ä", "sent": "b"}, {"prompt": "q", "draft": "a", "sent": "c"}]
    rows = rows[:1] if shape == "pretty object" else rows
    dumped = {
        "lines": "\n".join(map(json.dumps, rows)) + "\n",
        "array": json.dumps(rows),
        "pretty array": json.dumps(rows, indent=2),
        "pretty objects": "\n".join(json.dumps(row, indent=2) for row in rows),
        "pretty object": json.dumps(rows[0], indent=4),
    }[shape].encode(encoding)
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(gzip.compress(dumped) if suffix.endswith("gz") else dumped)
    assert texts(path) == [(row["prompt"], row["draft"], row["sent"]) for row in rows]


def test_rows_inside_of_one_object(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"object": "list", "data": [{"prompt": "p"}, {"prompt": "q"}]}, indent=1))
    with pytest.raises(ValueError, match=r"field 'data' holds 2 rows of its own; write that list to a file"):
        read_prompts(path)


@pytest.mark.parametrize("shape", ["lines", "array", "nested"])
def test_a_name_that_stands_twice_in_a_row(tmp_path: Path, shape: str) -> None:
    twice = '{"prompt": "p", "chosen": "a", "chosen": "b", "rejected": "c"}'
    if shape == "nested":
        twice = '{"prompt": [{"role": "user", "content": "x", "content": "y"}], "chosen": "a", "rejected": "c"}'
    good = '{"prompt": "p", "chosen": "a", "rejected": "c"}'
    path = tmp_path / "rows.json"
    path.write_text(f"[{twice}, {good}]" if shape == "array" else f"{twice}\n{good}\n")
    assert texts(path, set_aside=tmp_path / "aside.jsonl") == [("p", "c", "a")]
    name = "content" if shape == "nested" else "chosen"
    assert aside_of(tmp_path / "aside.jsonl") == [(1, f"field '{name}' stands twice in the row")]


# Typed columns.


def test_parquet_with_dates_and_decimals(tmp_path: Path) -> None:
    row = {
        "prompt": "p",
        "draft": "a",
        "sent": "b",
        "when": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "price": Decimal("0.10"),
        "large": Decimal("12345678901234567890.5"),
        "bytes": b"text",
        "nested": [{"at": date(2026, 1, 2)}],
    }
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "log.parquet")
    expected = {
        "when": "2026-01-02T03:04:00+00:00",
        "day": "2026-01-02",
        "price": 0.1,
        "large": "12345678901234567890.5",
        "bytes": "text",
        "nested": [{"at": "2026-01-02"}],
    }
    (found,) = read_corrections(tmp_path / "log.parquet")
    assert found.extra == expected
    (found,) = corrections_from([row])
    assert found.extra == expected
    write_rows(tmp_path / "edits.jsonl", [found])
    assert read_corrections(tmp_path / "edits.jsonl") == [found]
    with pytest.raises(ValueError, match=r"field 'image' holds bytes that are no text; drop that column"):
        list(corrections_from([{**row, "image": b"\xff\xd8"}]))


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_excel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ["Prompt", "Draft", "Sent", "Date", "ID", None],
        ["p", "a\nb", "c", datetime(2026, 1, 2), 7, None],
        [json.dumps(TALK), "a", "b", None, None, None],
        [None, None, None, None, None, None],
        ["p", "a", None, None, 8, None],
        ["p", 5, "b", None, 9, None],
    ]
    path = workbook(tmp_path / "log.xlsx", Log=rows)
    found = read_corrections(path, set_aside=tmp_path / "aside.jsonl")
    assert [(row.id, row.prompt, row.original, row.edited) for row in found] == [
        ("7", "p", "a\nb", "c"),
        ("row-3", TALK, "a", "b"),
    ]
    assert found[0].extra == {"Date": "2026-01-02T00:00:00"}
    assert aside_of(tmp_path / "aside.jsonl") == [
        (4, "the row is empty"),
        (5, "the text after the edit (sent, edited, chosen) is empty"),
        (6, "field 'draft' is neither a text nor a list of one assistant message"),
    ]
    told = capsys.readouterr().err
    assert told.startswith(f"{path}: sheet Log; 5 columns: Prompt, Draft, Sent, Date, ID; column 'Prompt' is 'prompt'")
    assert "messages as JSON are read as messages" in told


def test_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["prompt", "draft", "sent"], ["p", "a", "b"]]
    assert texts(workbook(tmp_path / "a.xlsx", Notes=[["to do"]], Log=rows, Empty=[])) == [("p", "a", "b")]
    with pytest.raises(ValueError, match=r"has the sheets One, Two; save the one that is meant as a file of its own"):
        texts(workbook(tmp_path / "b.xlsx", One=rows, Two=rows))
    with pytest.raises(ValueError, match=r"has no usable row"):
        texts(workbook(tmp_path / "c.xlsx", One=[]))
    (tmp_path / "d.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"d.xlsx is not an Excel file that can be read"):
        texts(tmp_path / "d.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ValueError, match=r"pip install 'errata\[excel\]'"):
        texts(tmp_path / "a.xlsx")


# Columns under other names.


def csv_of(path: Path, *names: str) -> Path:
    path.write_text(f"{','.join(names)}\n{','.join(f'{name}!' for name in names)}\n")
    return path


@pytest.mark.parametrize(
    ("before", "after"), [(b, "final_text") for b in sorted(BEFORE)] + [("draft", a) for a in sorted(AFTER)]
)
def test_well_known_names(tmp_path: Path, before: str, after: str) -> None:
    path = csv_of(tmp_path / "log.csv", "question", before, after, "user")
    assert texts(path) == [("question!", f"{before}!", f"{after}!")]


@pytest.mark.parametrize("name", sorted(PROMPT))
def test_well_known_names_of_prompts(tmp_path: Path, name: str) -> None:
    spelled = name.replace("_", " ").title()
    assert [row.prompt for row in read_prompts(csv_of(tmp_path / "log.csv", spelled))] == [f"{spelled}!"]


def test_every_reader_knows_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = csv_of(tmp_path / "log.csv", "input", "model_output", "final_text")
    (demonstration,), (preference,) = read_demonstrations(path), read_preferences(path)
    assert (demonstration.prompt, demonstration.response) == ("input!", "final_text!")
    assert (preference.prompt, preference.rejected, preference.chosen) == ("input!", "model_output!", "final_text!")
    assert recognise_file(path).format is FORMATS["draft-sent"]
    assert [row.edited for row in iter_corrections(path, form=FORMATS["draft-sent"])] == ["final_text!"]
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == (
        f"{path}: column 'model_output' is 'draft'; column 'final_text' is 'sent'; column 'input' is 'prompt'"
    )
    row = {"input": "p", "model_output": "a", "final_text": "b"}
    assert [(row.original, row.edited) for row in corrections_from([row])] == [("a", "b")]


@pytest.mark.parametrize("names", [("rejected", "chosen"), ("original", "edited"), ("draft", "sent")])
def test_preferences_are_read_under_every_pair_of_names(tmp_path: Path, names: tuple[str, str]) -> None:
    (found,) = read_preferences(csv_of(tmp_path / "log.csv", "prompt", *names))
    assert (found.rejected, found.chosen) == (f"{names[0]}!", f"{names[1]}!")


def test_preferences_in_a_published_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"instruction": "p", "input": "", "output": "y", "original_output": "a", "revised_output": "b"}
    path.write_text(json.dumps(row))
    (preference,), (demonstration,), (prompt,) = read_preferences(path), read_demonstrations(path), read_prompts(path)
    assert (preference.prompt, preference.rejected, preference.chosen) == ("p", "a", "b")
    assert (demonstration.response, prompt.prompt) == ("b", "p")


def test_chats_are_demonstrations(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [*TALK, {"role": "assistant", "content": "No."}]}))
    (found,) = read_demonstrations(path)
    assert (found.prompt, found.response) == (TALK, "No.")


def test_two_candidates_are_an_error(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "log.csv", "prompt", "final", "final text", "draft")
    expected = r"log.csv: columns 'final', 'final text' could each be 'sent'; say which: --columns sent=final or "
    with pytest.raises(ValueError, match=expected + '--columns sent="final text"'):
        texts(path)
    assert texts(path, columns={"sent": "final text"}) == [("prompt!", "draft!", "final text!")]
    path = csv_of(tmp_path / "log.csv", "Prompt", "PROMPT", "draft", "sent")
    with pytest.raises(ValueError, match=r"columns 'Prompt', 'PROMPT' could each be 'prompt'"):
        texts(path)


def test_no_candidate_names_the_columns_and_the_flag(tmp_path: Path) -> None:
    expected = r"columns are 'x', 'y', 'z': say which is which with --columns prompt=COLUMN draft=COLUMN sent=COLUMN"
    path = csv_of(tmp_path / "log.csv", "x", "y", "z")
    for set_aside in (None, tmp_path / "aside.jsonl"):
        with pytest.raises(ValueError, match=expected):
            texts(path, set_aside=set_aside)
    (tmp_path / "rows.jsonl").write_text('{"x": "p", "y": "a"}\n')
    with pytest.raises(ValueError, match=r"fields are x, y; .*--columns prompt=FIELD draft=FIELD sent=FIELD"):
        recognise_file(tmp_path / "rows.jsonl")


def test_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"prompt": "x", "draft": "y", "sent": "z"}
    assert texts(csv_of(tmp_path / "log.csv", "x", "y", "z"), columns=given) == [("x!", "y!", "z!")]
    # What had the name before is kept under another.
    (found,) = read_corrections(csv_of(tmp_path / "log.csv", "prompt", "draft", "x", "sent"), columns={"draft": "x"})
    assert (found.original, found.extra) == ("x!", {"source_draft": "draft!"})
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"data": {"q": "p", "a": {"text": "a"}}, "sent": "b"}))
    assert texts(path, columns={"prompt": "data.q", "draft": "data.a.text"}) == [("p", "a", "b")]
    path = csv_of(tmp_path / "log.csv", "prompt", "draft", "sent")
    for wrong, message in (
        ({"drft": "x"}, r"errata reads no 'drft'; did you mean 'draft'\?"),
        ({"prompt": "draft", "draft": "draft"}, r"'draft' is given for prompt and for draft"),
        ({"prompt": "prompt", "draft": "x"}, r"--columns draft=x: no row has that column; its columns are 'prompt', "),
    ):
        with pytest.raises(ValueError, match=message):
            texts(path, columns=wrong)
    # A second file of a verb may have errata's own names.
    capsys.readouterr()
    assert texts(path, columns={"draft": "x", "sent": "y"}) == [("prompt!", "draft!", "sent!")]
    assert "--columns is not applied" in capsys.readouterr().err
    assert texts(path, form=FORMATS["spa"]) == [("prompt!", "draft!", "sent!")]
    assert "--from is not applied" in capsys.readouterr().err


def test_messages_in_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    cells = [json.dumps(TALK), repr(TALK), "[a list] of words", json.dumps(TALK)[:-5]]
    rows = ['"{}",a,b\n'.format(cell.replace('"', '""')) for cell in cells]
    path.write_text("prompt,draft,sent\n" + "".join(rows))
    assert [prompt for prompt, *_ in texts(path, set_aside=tmp_path / "aside.jsonl")] == [TALK, TALK, cells[2]]
    assert aside_of(tmp_path / "aside.jsonl") == [(5, "field 'prompt' begins like a list of messages and is no JSON")]


def test_lists_of_texts_are_no_edits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}))
    with pytest.raises(
        ValueError, match=r"lists of texts in the first 1 rows, as in RM-Bench: .*write a row for each pair"
    ):
        recognise_file(path)
    for read in (read_corrections, read_preferences):
        with pytest.raises(ValueError, match=r"field '(rejected|chosen)' is a list of 3 texts, as in RM-Bench"):
            read(path)


# Empty texts.

EMPTY = "prompt,draft,sent\np,a,\np, ,b\n,,\n,a,b\np,a,c\n"


def test_empty_texts_are_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    path.write_text(EMPTY)
    assert texts(path) == [("", "a", "b"), ("p", "a", "c")]
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        f"{path}: 3 of 5 rows skipped; the first, line 2: the text after the edit (sent, edited, chosen) is empty; "
        "write it, or keep such rows with --empty-texts keep"
    )
    assert second == f"{path}: 1 of 2 rows have an empty prompt"
    assert texts(path, set_aside=tmp_path / "aside.jsonl") == [("", "a", "b"), ("p", "a", "c")]
    assert aside_of(tmp_path / "aside.jsonl") == [
        (2, "the text after the edit (sent, edited, chosen) is empty"),
        (3, "the text before the edit (draft, original, rejected) is empty"),
        (4, "the row is empty"),
    ]
    kept = [("p", "a", ""), ("p", " ", "b"), ("", "a", "b"), ("p", "a", "c")]
    assert texts(path, empty_texts="keep") == kept


def test_every_reader_skips_empty_texts(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(EMPTY)
    assert [row.chosen for row in read_preferences(path)] == ["b", "c"]
    assert [row.response for row in read_demonstrations(path)] == ["b", "b", "c"]
    assert [row.id for row in read_prompts(path)] == ["row-2", "row-3", "row-6"]
    rows = [{"prompt": "p", "draft": "a", "sent": sent} for sent in ("", "\u2003\n", "b")]
    assert [row.edited for row in corrections_from(rows)] == ["b"]
    assert [row.edited for row in corrections_from(rows, empty_texts="keep")] == ["", "\u2003\n", "b"]
    path.write_text("prompt,draft,sent\np,a,\n")
    with pytest.raises(
        ValueError, match=r"has no usable row; give it at least one \(the first, line 2: the text after"
    ):
        read_corrections(path)


def test_an_empty_cell_of_an_id_or_a_reason_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("id,prompt,draft,sent,reason,rejected_ids\n,p,a,b,,\n7,p,a,c,style,\n")
    assert [(row.id, row.reasons) for row in read_corrections(path)] == [("row-2", ()), ("7", ("style",))]


# Damaged rows.


def test_damaged_rows_of_a_table_take_no_other_with_them(tmp_path: Path) -> None:
    path, aside = tmp_path / "log.csv", tmp_path / "aside.jsonl"
    path.write_bytes(
        b'prompt,draft,sent\np,a,1\np,"open,2\np,a,3\np,"x ""y"",\nz",4\n"p"x,a,5\np,\0,6\np,\xe9\xff,7\np,a,8,9\n'
        b'p,a,10\n"end,a,11\np,a,12\n'
    )
    found = texts(path, set_aside=aside)
    assert [edited for *_, edited in found] == ["1", "3", "4", "10", "12"]
    assert found[2][1] == 'x "y",\nz'
    kept = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [(row["line"], row["error"].split(";")[0]) for row in kept] == [
        (3, "not CSV: ',' expected after '\"'"),
        (7, "not CSV: ',' expected after '\"'"),
        (8, "a cell holds a NUL byte"),
        (9, "not UTF-8"),
        (10, "4 cells and 3 columns"),
        (12, "not CSV: unexpected end of data"),
    ]
    assert kept[0]["raw"] == 'p,"open,2'


def test_the_rest_of_a_broken_row_is_not_taken_for_a_row(tmp_path: Path) -> None:
    path, aside = tmp_path / "log.csv", tmp_path / "aside.jsonl"
    path.write_text('prompt,draft,sent\np,"He said "hello" to\nme, to her, to all"\np,a,b\n')
    assert texts(path, set_aside=aside) == [("p", "a", "b")]
    assert [line for line, _ in aside_of(aside)] == [2, 3]


def test_a_quote_that_is_never_closed_holds_no_file_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "_ROW_CHARACTERS", 100)
    path, aside = tmp_path / "log.csv", tmp_path / "aside.jsonl"
    path.write_text('prompt,draft,sent\np,"open,2\n' + "p,a,b\n" * 100)
    assert len(texts(path, set_aside=aside)) == 100
    assert aside_of(aside) == [(2, "not CSV: a quote is not closed")]


def test_header_with_one_name_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("prompt,sent,draft,sent\np,a,b,c\n")
    with pytest.raises(ValueError, match=r"line 1: two columns have the same name; rename one of 'sent'"):
        read_corrections(path)


# Exports of tools.


def exports() -> Iterator[tuple[str, dict[str, Any], str]]:
    submitted = [{"value": text, "user_id": "u"} for text in ("b", "c")]
    argilla = {"fields": {"question": "p", "answer": "a"}, "responses": {"better": submitted[:1]}, "suggestions": {}}
    yield "argilla", argilla | {"responses": {}}, r"no response is submitted that is a text, nobody corrected"
    yield "argilla", argilla | {"responses": {"better": submitted}}, r"question 'better' has 2 different texts"
    two = {"better": submitted[:1], "other": submitted[:1]}
    yield "argilla", argilla | {"responses": two}, r"'better', 'other' is known as 'sent'.* sent=responses.FIELD"
    fields = {"question": "p", "answer": "a", "output": "b"}
    yield "argilla", argilla | {"fields": fields}, r"'fields.answer', 'fields.output' could each be 'draft'"
    yield "argilla", argilla | {"fields": {"question": "p", "x": "a"}}, r"'x' is known as 'draft'.* draft=fields.FIELD"
    trace = {"input": "p", "output": "a", "scores": []}
    yield "langfuse", trace, r"nobody corrected this trace; drop it"
    yield "langfuse", trace | {"expectedOutput": "b", "output": {"x": 1}}, r"field 'output' is no text and no message"
    task = {"data": {"question": "p", "answer": "a"}, "annotations": []}
    yield "label-studio", task, r"holds no text of a TextArea, nobody corrected this task"
    area = {"type": "textarea", "from_name": "t", "value": {"text": ["b"]}}
    other = area | {"value": {"text": ["c"]}}
    yield "label-studio", task | {"annotations": [{"result": [area]}, {"result": [other]}]}, r"2 different texts"
    named = area | {"from_name": "u"}
    yield "label-studio", task | {"annotations": [{"result": [area, named]}]}, r"'t', 'u' could each be 'sent'; export"
    yield (
        "openai-preference",
        {"input": {"messages": TALK}, "preferred_output": [], "non_preferred_output": []},
        r"field",
    )


@pytest.mark.parametrize(("name", "row", "message"), list(exports()))
def test_an_export_that_leaves_a_doubt(name: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FORMATS[name].parse(json.loads(json.dumps(row)), 1)  # type: ignore[index]


def test_exports_are_recognised_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "project.csv"
    path.write_text(
        "id,question,answer,fixed,annotator,annotation_id,created_at,updated_at,lead_time\n"
        '1,p,a,"{""text"": [""b""]}",1,11,t,t,2.5\n1,p,a,c,2,12,t,t,2.5\n'
    )
    assert [(row.id, row.original, row.edited) for row in read_corrections(path)] == [
        ("1/11", "a", "b"),
        ("1/12", "a", "c"),
    ]
    assert [row.chosen for row in read_preferences(path)] == ["b", "c"]
    path = tmp_path / "traces.csv"
    asked = json.dumps({"messages": TALK}).replace('"', '""')
    path.write_text(
        f'id,input,output,expectedOutput\nt,"{asked}","{{""role"": ""assistant"", ""content"": ""a""}}",b\n'
    )
    assert texts(path) == [(TALK, "a", "b")]


def test_a_named_field_of_an_export_comes_first(tmp_path: Path) -> None:
    record = {
        "fields": {"question": "p", "answer": "a", "output": "x"},
        "responses": {"one": [{"value": "b"}], "two": [{"value": "c"}]},
    }
    path = tmp_path / "records.json"
    path.write_text(json.dumps([record]))
    assert texts(path, columns={"draft": "fields.answer", "sent": "responses.two"}) == [("p", "a", "c")]


def test_what_came_out_of_a_tool_is_read_as_edits_again(tmp_path: Path) -> None:
    path = tmp_path / "project.csv"
    path.write_text("id,question,answer,fixed,annotation_id,lead_time\n1,p,a,b,11,2.5\n")
    found = read_corrections(path)
    write_rows(tmp_path / "edits.jsonl", found)
    assert recognise_file(tmp_path / "edits.jsonl").format is FORMATS["preference"]
    assert read_corrections(tmp_path / "edits.jsonl") == found


def test_a_name_in_words_is_as_good_as_a_path(tmp_path: Path) -> None:
    path, aside = tmp_path / "log.csv", tmp_path / "bad.jsonl"
    path.write_text("prompt,draft,sent\np,a cat,a dog\np,a cat\n")
    assert read_corrections(str(path), set_aside=str(aside)) == read_corrections(
        path, set_aside=tmp_path / "also.jsonl"
    )
    assert aside.read_text() == (tmp_path / "also.jsonl").read_text() != ""
    assert recognise_file(str(path)) == recognise_file(path)
    given = [{"prompt": "p", "original": "a", "edited": "b"}, {"prompt": "p"}]
    assert len(list(corrections_from(given, set_aside=str(aside)))) == 1
