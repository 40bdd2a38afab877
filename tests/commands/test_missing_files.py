"""A flag that names a file which is not there, or no file: the flag, the file, and what is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from errata.cli import main
from errata.data import write_rows


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("missing")
    tiny.llama(path / "m")
    write_rows(path / "rows.jsonl", tiny.corrections(6))
    write_rows(path / "prompts.jsonl", tiny.prompts(2))
    return path


ROWS, MODEL, OUT = "{at}/rows.jsonl", "--model={at}/m", "--out={at}/out.jsonl"
SIDES = "winrate --candidate=a={at}/rows.jsonl --baseline=b={at}/rows.jsonl"
FILE_FLAGS = [
    (f"learn GONE {MODEL} --out={{at}}/run", "LOG"),
    (f"learn {ROWS} {MODEL} --out={{at}}/run --general=GONE", "--general"),
    (f"learn {ROWS} {MODEL} --out={{at}}/run --guideline=GONE", "--guideline"),
    ("edits import --data=GONE --out={at}/out.jsonl", "--data"),
    ("edits diff --data=GONE", "--data"),
    ("edits stats --data=GONE", "--data"),
    (f"edits filter --data=GONE {OUT} --max-edit-ratio=0.5", "--data"),
    (f"edits llm --data=GONE {OUT} --llm=local:{{at}}/m", "--data"),
    (f"edits llm --data={ROWS} {OUT} --llm=local:{{at}}/m --guideline=GONE", "--guideline"),
    ("edits page --db={at}/page.db --data=GONE", "--data"),
    (f"edits page --db={{at}}/page.db --data={ROWS} --guideline=GONE", "--guideline"),
    (f"labels --edits=GONE {MODEL} {OUT}", "--edits"),
    (f"doctor --data=GONE {MODEL}", "--data"),
    (f"reward train {MODEL} --data=GONE --out={{at}}/run", "--data"),
    (f"reward train {MODEL} --data={ROWS} --heldout=GONE --out={{at}}/run", "--heldout"),
    (f"tune sft {MODEL} --data=GONE --out={{at}}/run", "--data"),
    (f"tune sft {MODEL} --data={ROWS} --heldout=GONE --out={{at}}/run", "--heldout"),
    (f"tune figa {MODEL} --labels=GONE --out={{at}}/run", "--labels"),
    (f"tune figa {MODEL} --edits=GONE --out={{at}}/run", "--edits"),
    (f"tune dpo {MODEL} --data=GONE --out={{at}}/run", "--data"),
    (f"generate {MODEL} --prompts=GONE {OUT}", "--prompts"),
    ("winrate --candidate=a=GONE --baseline=b={at}/rows.jsonl --references={at}/rows.jsonl", "--candidate"),
    (f"{SIDES} --references=GONE", "--references"),
    (f"{SIDES} --verdicts=GONE", "--verdicts"),
    (f"{SIDES} --llm=local:{{at}}/m --judge-prompt=GONE", "--judge-prompt"),
    ("winrate --annotations=GONE", "--annotations"),
    ("view --rollouts=GONE", "--rollouts"),
    ("tune sft --config=GONE", "--config"),
]


@pytest.mark.parametrize(("line", "flag"), FILE_FLAGS, ids=lambda each: " ".join(each.split()[:2]))
def test_a_file_that_is_not_there(line: str, flag: str, at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = at / "gone.jsonl"
    assert main(line.format(at=at).replace("GONE", str(gone)).split()) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"errata: {flag} {gone}: there is no such file; give a ")
    assert "Traceback" not in said
    assert not (at / "run").exists()


def test_a_text_file_that_is_a_folder_or_in_another_encoding(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "old.txt").write_bytes("Grüße".encode("cp1252"))
    for given, said in ((at, "that is a folder; give a text file"), (at / "old.txt", "it is not in UTF-8")):
        assert main(["learn", f"{at}/rows.jsonl", f"--model={at}/m", f"--out={at}/run", f"--general={given}"]) == 1
        assert f"--general {given}: {said}" in capsys.readouterr().err


def test_a_model_of_the_hub_and_an_output_are_no_files_of_rows(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "sft", "--model=gone", f"--data={at}/rows.jsonl", f"--out={at}/run"]) == 1
    assert "there is no model folder gone" in capsys.readouterr().err
