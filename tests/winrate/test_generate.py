from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import tiny
from errata.data import read_demonstrations
from errata.models import Sampling, TransformersGenerator, load_causal
from errata.types import PromptRow
from errata.winrate import generate, read_outputs

PROMPTS = [replace(row, extra={"topic": "x", "chosen": "another answer"}) for row in tiny.prompts(11)]
# A model that answers nothing has answered.
read_answers = partial(read_demonstrations, empty_texts="keep")
SAMPLED = Sampling(max_new_tokens=4, temperature=1.0, samples=2, seed=3)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> TransformersGenerator:
    return TransformersGenerator(load_causal(tiny.llama(tmp_path_factory.mktemp("model"))), tiny.encoder())


class Dies:
    """A generator that is killed at a call."""

    def __init__(self, real: TransformersGenerator, at: int) -> None:
        self.real, self.at, self.calls = real, at, 0

    def __call__(self, prompts, sampling):
        self.calls += 1
        if self.calls > self.at:
            raise KeyboardInterrupt
        return self.real(prompts, sampling)


def made(generator, out: Path, sampling: Sampling = SAMPLED, **changed):
    settings = {"name": "tiny", "settings": {"model": "m"}, "chunk": 4, **changed}
    return generate(generator, PROMPTS, sampling, out, **settings)


def test_rows(real, tmp_path) -> None:
    assert made(real, tmp_path / "a.jsonl") == 0
    rows = read_answers(tmp_path / "a.jsonl")
    assert [row.id for row in rows] == [f"p{k}#{sample}" for k in range(11) for sample in range(2)]
    assert rows[3].prompt == PROMPTS[1].prompt
    assert rows[3].extra.keys() == {"topic", "generator", "tokens", "ended", "prompt_id"}
    assert (rows[3].extra["generator"], rows[3].extra["prompt_id"], rows[3].extra["topic"]) == ("tiny", "p1", "x")
    assert len({row.response for row in rows}) > 11  # samples differ
    assert not list(tmp_path.glob(".*"))


def test_greedy_is_what_the_generator_says(real, tmp_path) -> None:
    greedy = Sampling(max_new_tokens=4, temperature=0.0)
    made(real, tmp_path / "a.jsonl", greedy)
    rows = read_answers(tmp_path / "a.jsonl")
    assert [(row.id, row.response) for row in rows] == [(one.id, one.text) for one in real(PROMPTS, greedy)]


@pytest.mark.parametrize(
    "torn", [b"", b'{"prompt_id": "p4", "sam', b'{"prompt_id": "p8", "response": "half a chunk"}\n']
)
def test_a_stopped_run_goes_on_to_the_same_bytes(real, tmp_path, torn) -> None:
    made(real, tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        made(Dies(real, 2), tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()
    with (tmp_path / ".a.jsonl.partial.jsonl").open("ab") as file:
        file.write(torn)
    again = Dies(real, 1)
    assert made(again, tmp_path / "a.jsonl") == 16
    assert again.calls == 1
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("form", ["rows", "alpaca_eval"])
@pytest.mark.parametrize("harm", ["doubled", "damaged", "unknown", "missing", "two at once"])
def test_answers_that_do_not_fit_the_prompts_are_made_again(real, tmp_path, capsys, harm, form) -> None:
    """Of two processes in one file, or of a disk: never a prompt without an answer, never one with two."""
    name = "a.jsonl" if form == "rows" else "a.json"
    (tmp_path / "whole").mkdir()
    made(real, tmp_path / "whole" / name, form=form)
    with pytest.raises(KeyboardInterrupt):
        made(Dies(real, 2), tmp_path / name, form=form)
    partial = tmp_path / f".{name}.partial.jsonl"
    head, *lines = partial.read_bytes().splitlines(keepends=True)
    lines = {
        "doubled": [*lines[:9], lines[8], *lines[9:]],
        "damaged": [*lines[:9], lines[9][:20] + b"\n", *lines[10:]],
        "unknown": [*lines[:9], lines[9].replace(b'"p4"', b'"p99"'), *lines[10:]],
        "missing": [*lines[:9], *lines[10:]],
        "two at once": [*lines[:8], *lines[:8], *lines[8:], *lines[8:]],
    }[harm]
    partial.write_bytes(head + b"".join(lines))
    again = Dies(real, 9)
    assert made(again, tmp_path / name, form=form) == 8
    assert again.calls == 2, "the first chunk stands"
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert "damaged, doubled or of another prompt; what follows is made again" in capsys.readouterr().err


def test_a_file_that_was_cut_since_is_not_taken_for_all_answers(real, tmp_path) -> None:
    out = tmp_path / "a.jsonl"
    made(real, out)
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=rf"{out} is not what was written there: .* delete it and rerun"):
        made(real, out)
    out.unlink()
    assert made(real, out) == 0
    settings = json.loads((tmp_path / "a.jsonl.settings.json").read_text())
    del settings["sha256"]  # of before there were digests
    (tmp_path / "a.jsonl.settings.json").write_text(json.dumps(settings))
    assert made(real, out) == 22


def test_a_generator_that_skips_a_prompt_is_an_error(real, tmp_path) -> None:
    with pytest.raises(ValueError, match="the generator gave 7 answers to 4 prompts; each needs 2"):
        made(lambda prompts, sampling: real(prompts, sampling)[1:], tmp_path / "a.jsonl")


def test_a_generator_that_says_nothing_of_itself_is_not_gone_on_with(real, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(Dies(real, 1), tmp_path / "a.jsonl", settings={})
    with pytest.raises(ValueError, match="nobody can tell whether this generator made it; give it an attribute `ident"):
        made(Dies(real, 9), tmp_path / "a.jsonl", settings={})
    for name, error in (("one", KeyboardInterrupt), ("other", ValueError)):
        dies = Dies(real, 1)
        dies.identity = name
        with pytest.raises(error):
            made(dies, tmp_path / "b.jsonl", settings={})


def test_a_finished_run_is_not_made_again_nor_over(real, tmp_path) -> None:
    made(real, tmp_path / "a.jsonl")
    assert made(Dies(real, 0), tmp_path / "a.jsonl") == 22
    with pytest.raises(ValueError, match="seed was 3, is 4"):
        made(real, tmp_path / "a.jsonl", replace(SAMPLED, seed=4))
    (tmp_path / "theirs.jsonl").write_text("x")
    with pytest.raises(ValueError, match="says nowhere how it was made"):
        made(real, tmp_path / "theirs.jsonl")


def test_other_settings_do_not_go_on(real, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(Dies(real, 1), tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="'m', is 'other'"):
        made(real, tmp_path / "a.jsonl", settings={"model": "other"})
    with pytest.raises(ValueError, match="prompts was"):
        generate(real, PROMPTS[1:], SAMPLED, tmp_path / "a.jsonl", name="tiny", settings={"model": "m"}, chunk=4)


def test_a_header_that_was_never_finished(real, tmp_path) -> None:
    (tmp_path / ".a.jsonl.partial.jsonl").write_bytes(b'{"model": "m')
    assert made(real, tmp_path / "a.jsonl") == 0
    assert len(read_answers(tmp_path / "a.jsonl")) == 22


def test_chunks_differ_and_seeds_count(real, tmp_path) -> None:
    one = [PromptRow(id=f"p{k}", prompt="say one") for k in range(8)]
    generate(real, one, replace(SAMPLED, samples=1), tmp_path / "a.jsonl", name="t", settings={}, chunk=4)
    texts = [row.response for row in read_answers(tmp_path / "a.jsonl")]
    assert texts[:4] != texts[4:]
    generate(real, one, replace(SAMPLED, samples=1, seed=9), tmp_path / "b.jsonl", name="t", settings={}, chunk=4)
    assert texts != [row.response for row in read_answers(tmp_path / "b.jsonl")]


def test_as_alpaca_eval_has_it(real, tmp_path) -> None:
    made(real, tmp_path / "a.json", replace(SAMPLED, samples=1), form="alpaca_eval")
    assert json.loads((tmp_path / "a.json").read_text())[0].keys() == {"instruction", "output", "generator"}
    assert [row.prompt for row in read_outputs(tmp_path / "a.json")] == [row.prompt for row in PROMPTS]
