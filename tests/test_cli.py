"""The verbs as somebody types them, on files, with a model of a few thousand weights."""

import json
import runpy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, LlamaConfig, LlamaForCausalLM

from errata import commands
from errata.cli import main, overview
from errata.commands import load, where_is
from errata.commands.config import ALIASES, fields_of
from errata.data import read_corrections
from errata.demo.tokenizer import build_tokenizer
from errata.models import read_card, save_model

FAST = ["--learning-rate=0.01", "--epochs=1", "--batch-size=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a log of drafts and what was sent, and prompts."""
    path = tmp_path_factory.mktemp("cli")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    save_model(LlamaForCausalLM(config), tokenizer, path / "model")
    wrong, right = (f"Hello Anna, the price is {number} euros." for number in ("five", "nine"))
    rows = [(wrong, right), ("Thank you.", "Thank you.")]
    lines = [f'"Write to {name}.","{draft}","{sent}"' for name in ("Anna", "Felix", "Clara") for draft, sent in rows]
    (path / "log.csv").write_text("\n".join(["prompt,draft,sent", *lines, '"a prompt alone"']) + "\n")
    assert main(["edits", "import", "--data", f"{path}/log.csv", "--out", f"{path}/edits.jsonl"]) == 0
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_overview_names_every_verb_and_no_other(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"errata {verb} " in printed for verb in commands.COMMANDS)
    assert overview().count("\n  errata ") == len(commands.COMMANDS)


def test_python_runs_the_package_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["errata", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("errata", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == overview().strip()


@pytest.mark.parametrize(
    ("typed", "meant"), [(["tune", "figs"], "tune figa"), (["wirate"], "winrate"), (["reward"], "reward train")]
)
def test_an_unknown_verb_names_the_nearest(typed, meant, capsys):
    assert main(typed) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_a_family_lists_its_verbs(flag, capsys):
    assert main(["edits", flag]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in shown] == ["diff", "import", "llm", "stats", "filter", "page", "export"]


@pytest.mark.parametrize("verb", list(commands.COMMANDS))
def test_help_teaches(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"errata {verb}" in printed
    assert "--" in printed


def test_import_sets_bad_rows_aside_with_their_line(folder):
    assert len(read_corrections(folder / "edits.jsonl")) == 6
    bad = json.loads((folder / "edits.jsonl.bad_rows.jsonl").read_text())
    assert bad["line"] == 8


def test_import_names_what_it_recognised(folder, capsys):
    row = {"instruction": "Name a city.", "input": "", "output": "Lyon"}
    row |= {"original_output": "Rome", "revised_output": "Paris!"}
    data, out, config = (folder / name for name in ("spa.jsonl", "spa_edits.jsonl", "spa.yaml"))
    data.write_text(json.dumps(row) + "\n")
    assert run("edits", "import", "--data", data, "--out", out) == 0
    why = "SPA rows (FIGA): fields instruction, original_output, revised_output in 1 of 1 rows"
    assert why in capsys.readouterr().out
    config.write_text("from: draft-sent\n")
    assert run("edits", "import", "--data", data, "--out", out, "--config", config) == 1
    assert "line 1: field 'prompt' is missing" in capsys.readouterr().err
    assert run("edits", "import", "--data", data, "--out", out, "--config", config, "--from", "spa") == 0
    assert [found.edited for found in read_corrections(out)] == ["Paris!"]


def test_edits_diff_shows_and_writes(folder, capsys):
    assert run("edits", "diff", "--original", "a red cup", "--edited", "a blue cup") == 0
    assert "a [-red-]{+blue+} cup" in capsys.readouterr().out
    assert run("edits", "diff", "--original", "a [b]", "--edited", "a [b] and \x1b[2Jmore") == 0
    assert "a [b]{+ and ␛[2Jmore+}" in capsys.readouterr().out
    assert run("edits", "diff", "--original", "a", "--edited", "b", "--unit=token") == 1
    assert "needs --model" in capsys.readouterr().err
    assert run("edits", "diff", "--data", folder / "edits.jsonl", "--out", folder / "diff.jsonl") == 0
    first = json.loads((folder / "diff.jsonl").read_text().splitlines()[0])
    assert [edit["op"] for edit in first["edits"]] == ["keep", "substitute", "keep"]


def test_the_road_through_a_reward_model(folder):
    model, edits = folder / "model", folder / "edits.jsonl"
    assert run("reward", "train", "--model", model, "--data", edits, "--out", folder / "reward", *FAST) == 0
    assert AutoModelForTokenClassification.from_pretrained(folder / "reward").num_labels == 1
    assert read_card(folder / "reward")["excluded_without_gradient"] == 3
    assert run("reward", "eval", "--reward", folder / "reward", "--data", edits, "--out", folder / "eval.json") == 0
    assert json.loads((folder / "eval.json").read_text())["rows"] == 3
    assert run("reward", "score", "--reward", folder / "reward", "--data", edits, "--out", folder / "scores.jsonl") == 0
    score = json.loads((folder / "scores.jsonl").read_text().splitlines()[0])
    assert "".join(score["tokens"]) == "Hello Anna, the price is nine euros."
    assert score["reward"] == pytest.approx(sum(score["token_rewards"]))
    flags = ["--steps=1", "--rollouts-per-step=4", "--minibatch-size=4", "--max-new-tokens=6"]
    arguments = ["--model", model, "--reward", folder / "reward", "--prompts", edits, "--out", folder / "ppo"]
    assert run("tune", "ppo", *arguments, *flags) == 0
    assert (folder / "ppo" / "metrics.jsonl").exists()
    more = ["--heldout", edits, "--preferences", edits, "--sequence-coefficient=1"]
    for kind in (["--kind=sequence", *more], ["--objective=eq3"], ["--objective=soft", *more, "--lora-rank=2"]):
        out = folder / kind[0].replace("=", "_")
        assert run("reward", "train", "--model", model, "--data", edits, "--out", out, *kind, *FAST) == 0


def test_a_reward_model_is_measured_on_any_file(folder, capsys):
    model, edits, reward, out = folder / "model", folder / "edits.jsonl", folder / "measured", folder / "found.json"
    assert run("reward", "train", "--model", model, "--data", edits, "--out", reward, *FAST) == 0
    rows = [json.loads(line) for line in edits.read_text().splitlines()]
    for row in rows:
        row |= {"language": "en", "word_tags": ["BAD" if word == "five" else "OK" for word in row["rejected"].split()]}
    tagged = folder / "tagged.jsonl"
    tagged.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = folder / "samples.jsonl"
    lines = [{"id": str(k), "prompt": "Write to Anna.", "response": "Thank you.", "score": k} for k in range(3)]
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    every = ["--data", tagged, "--preferences", tagged, "--subset-field=language", "--fresh", tagged]
    capsys.readouterr()
    assert run("reward", "eval", "--reward", reward, *every, "--samples", samples, "--out", out) == 0
    found = json.loads(out.read_text())
    assert found["by subset"]["en"]["pairs"] == 3
    assert found["preferences by subset"]["en"]["pairs"] == found["preferences"]
    assert found["bad_words"] == 3
    assert found["auc_words"] is not None
    assert found["fresh_auc_bad_kept"] == found["auc_bad_kept"]
    assert (found["prompts"], found["random_of_n"], found["oracle_of_n"]) == (1, 1.0, 2.0)
    assert "words tagged OK above words tagged BAD" in capsys.readouterr().out
    assert run("labels", "--model", reward, "--edits", edits, "--out", folder / "labels.jsonl") == 0
    arguments = ["--reward", reward, "--labels", folder / "labels.jsonl", "--out", folder / "labelled.json"]
    assert run("reward", "eval", *arguments) == 0
    assert json.loads((folder / "labelled.json").read_text())["auc_bad_kept"] == found["auc_bad_kept"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to measure on"),
        (["--data={edits}", "--labels={edits}"], "give one of them"),
        (["--data={edits}", "--subset-field=none"], "has no field 'none'"),
        (["--samples={edits}"], "--gold-field"),
    ],
)
def test_what_no_reward_model_can_be_measured_on(folder, flags, message, capsys):
    model, edits, reward = folder / "model", folder / "edits.jsonl", folder / "refusing"
    if not reward.exists():
        assert run("reward", "train", "--model", model, "--data", edits, "--out", reward, *FAST) == 0
    assert run("reward", "eval", "--reward", reward, *(flag.format(edits=edits) for flag in flags)) == 1
    assert message in capsys.readouterr().err


def test_long_rows_are_dropped_or_truncated_and_counted(folder, capsys):
    """Three rows have 16 tokens and three have 10."""
    arguments = ["tune", "sft", "--model", folder / "model", "--data", folder / "edits.jsonl", *FAST]
    for on_long, rows, shown in (
        ("drop", 3, "dropped_too_long             3"),
        ("truncate", 6, "truncated                    3"),
    ):
        out = folder / f"long_{on_long}"
        assert run(*arguments, "--out", out, "--max-length=12", "--on-long", on_long) == 0
        assert read_card(out)["rows"] == rows
        assert shown in capsys.readouterr().out
    assert run(*arguments, "--out", folder / "none", "--on-long=drop") == 1
    assert "max_length" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["sft", "figa", "dpo"])
def test_offline_tuning_loads_in_plain_transformers_and_is_reused(folder, method, capsys):
    data = "--edits" if method == "figa" else "--data"
    out = folder / f"tuned_{method}"
    arguments = ["tune", method, "--model", folder / "model", data, folder / "edits.jsonl", "--out", out]
    assert run(*arguments, *FAST) == 0
    assert isinstance(AutoModelForCausalLM.from_pretrained(out), LlamaForCausalLM)
    assert not list(out.glob("*.bin"))
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    assert run(*arguments, *FAST) == 0
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    assert run(*arguments, "--seed=7", *FAST) == 1
    assert "delete it or name another" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["sft", "figa", "dpo"])
def test_offline_tuning_looks_at_held_out_corrections(folder, method):
    out, data = folder / f"held_{method}", "--edits" if method == "figa" else "--data"
    arguments = ["tune", method, "--model", folder / "model", data, folder / "edits.jsonl", "--out", out, *FAST]
    assert run(*arguments, "--heldout", folder / "edits.jsonl", "--evaluate-every=1", "--lora-rank=2") == 0
    card = json.loads((out / "errata.json").read_text())
    assert card["heldout_rows"] == 6
    assert card["eval_kl"] >= 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_loss" in line] == list(range(card["steps"] + 1))
    assert (out / "adapter" / "adapter_config.json").exists()


def test_figa_from_a_labels_file_equals_figa_from_edits(folder):
    common = ["--model", folder / "model"]
    assert run("labels", *common, "--edits", folder / "edits.jsonl", "--out", folder / "labels.jsonl") == 0
    assert run("tune", "figa", *common, "--labels", folder / "labels.jsonl", "--out", folder / "a", *FAST) == 0
    assert run("tune", "figa", *common, "--edits", folder / "edits.jsonl", "--out", folder / "b", *FAST) == 0
    assert (folder / "a" / "model.safetensors").read_bytes() == (folder / "b" / "model.safetensors").read_bytes()


def test_win_rate_by_references_and_edit_cost_left(folder):
    for name, end in (("good", "nine"), ("bad", "two")):
        rows = [
            {"id": row.id, "prompt": row.prompt, "response": row.edited.replace("nine", end)}
            for row in read_corrections(folder / "edits.jsonl")
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sides = ["--candidate", folder / "good.jsonl", "--baseline", folder / "bad.jsonl"]
    assert run("winrate", *sides, "--references", folder / "edits.jsonl", "--out", folder / "win.json") == 0
    found = json.loads((folder / "win.json").read_text())
    (arm,) = found["arms"]
    assert arm["win_rate"]["mean"] == 0.75  # three better, three alike
    assert arm["mean_value"] == 0  # minus edit cost
    assert arm["baseline_value"] == -0.5
    assert len(arm["verdicts"]) == 6


def test_win_rate_of_models(folder):
    sides = ["--candidate", folder / "model", "--baseline", folder / "model"]
    flags = ["--references", folder / "edits.jsonl", "--max-new-tokens=4", "--out", folder / "same.json"]
    assert run("winrate", *sides, *flags) == 0
    assert json.loads((folder / "same.json").read_text())["arms"][0]["win_rate"]["mean"] == 0.5


def test_view_in_the_terminal_and_as_a_page(folder, capsys):
    arguments = ["view", "--model", folder / "model", "--edits", folder / "edits.jsonl"]
    assert run(*arguments) == 0
    assert "nine" in capsys.readouterr().out
    assert run(*arguments, "--out", folder / "page.html") == 0
    assert "nine" in (folder / "page.html").read_text()


def parsed(verb, *arguments):
    return commands.parse(verb, [str(argument) for argument in arguments])


NEEDED = ("--model=m", "--edits=e.jsonl", "--out=o")


def test_preset_under_config_under_what_is_typed(tmp_path):
    file = tmp_path / "figa.yaml"
    file.write_text("preset: paper\nbad_weight: 0.3\nbatch-size: 16\n")
    assert parsed("tune figa", *NEEDED).settings.kept_weight == 0.5
    paper = parsed("tune figa", *NEEDED, "--preset", "paper").settings
    assert (paper.good_weight, paper.kept_weight, paper.bad_weight, paper.gate) == (1, 0, 0.5, 0.6)
    for verb, needed in (("tune figa", NEEDED), ("doctor", ("--model=m", "--data=e.jsonl"))):
        rules = parsed(verb, *needed, "--preset", "paper").rules
        assert (rules.unit, rules.ties) == ("token", "released")
        rules = parsed(verb, *needed, "--preset", "paper", "--ties=tagger").rules
        assert (rules.unit, rules.ties) == ("token", "tagger")
    settings = parsed("tune figa", *NEEDED, "--config", file, "--batch-size=32").settings
    assert (settings.kept_weight, settings.bad_weight, settings.batch_size) == (0, 0.3, 32)


@pytest.mark.parametrize(
    ("typed", "masks"),
    [
        ([], True),
        (["--mask-private"], True),
        (["--no-mask-private"], False),
        (["--mask-private", "False"], False),
        (["--mask_private=false"], False),
        (["--no-mask-private", "--mask-private", "True"], True),
    ],
)
def test_a_switch_needs_no_value_and_may_have_one(typed, masks):
    found = parsed("learn", "log.csv", "--model=m", "--out=o", *typed, "--bf16", "--seed=3")
    assert (found.config.mask_private, found.details.bf16) == (masks, True)
    assert parsed("learn", "--mask-private", "log.csv", "--model=m", "--out=o").log.name == "log.csv"


def test_a_switch_in_a_file_stands_under_what_is_typed(tmp_path, capsys):
    file = tmp_path / "doctor.yaml"
    file.write_text("strict: yes\nbf16: false\n")
    flags = ("--data=d", "--model=m", "--config", file)
    found = parsed("doctor", *flags)
    assert (found.strict, found.settings.dtype) == (True, "auto")
    found = parsed("doctor", *flags, "--no-strict", "--bf16")
    assert (found.strict, found.settings.dtype) == (False, "bfloat16")
    file.write_text("strict: perhaps\n")
    assert run("doctor", *flags) == 1
    assert "--strict=perhaps: give --strict or --no-strict" in capsys.readouterr().err


def test_a_config_file_may_say_what_others_call_a_setting(tmp_path, capsys):
    file = tmp_path / "trainer.yaml"
    file.write_text("lr_scheduler_type: cosine\nnum-train-epochs: 2\nsave_steps: 7\n")
    found = parsed("tune figa", *NEEDED, "--config", file).settings
    assert (found.schedule, found.epochs, found.save_every) == ("cosine", 2, 7)
    assert f"{file}: lr_scheduler_type is read as schedule" in capsys.readouterr().err
    verbs = [dict(fields_of(load(where_is(verb)))) for verb in ("tune figa", "tune ppo")]
    for theirs, ours in ALIASES.items():
        assert any(ours in fields for fields in verbs), ours
        assert not any(theirs in fields for fields in verbs), "it is a setting of its own by now"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat: 1\n", "learning_rate"),
        ("- a\n", "no mapping"),
        ("a: [1\n: x", "is not YAML"),
        ("epochs: [1, 2]\n", "one value"),
        ("epochs: 1\nnum_train_epochs: 2\n", "'num_train_epochs' stands there twice"),
        ("gamma: 1\n", "unknown key 'gamma'"),  # FIGA discounts nothing
    ],
)
def test_a_config_file_is_checked(tmp_path, text, said, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert run("tune", "figa", *NEEDED, "--config", file) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune", "figa", "--model=nowhere", "--edits=e.jsonl", "--out=o"], "nowhere"),
        (["tune", "figa", "--model={model}", "--out=o"], "--edits or --labels"),
        (["tune", "sft", "--model={model}", "--data=nowhere.jsonl", "--out=o"], "nowhere.jsonl"),
        (["tune", "ppo", "--model={model}", "--reward={model}", "--prompts={edits}", "--out=o"], "no reward model"),
        (["tune", "sft", "--model={model}", "--data={edits}", "--out={tmp}/o", "--max-length=5"], "limit is 5"),
        (["edits", "diff"], "--data"),
        (["winrate", "--candidate={edits}", "--baseline={edits}"], "judge"),
    ],
)
def test_errors_are_one_line_and_say_what_to_do(folder, tmp_path, arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"model": folder / "model", "edits": folder / "edits.jsonl", "tmp": tmp_path}
    assert main([argument.format(**names) for argument in arguments]) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert said in printed[-1]
    assert "Traceback" not in "\n".join(printed)
