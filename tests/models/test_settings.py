"""What is trained, how it is adapted, computed and saved: one set of settings for every verb that trains."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import tiny
from errata.cli import main
from errata.data import write_rows
from errata.models import LayoutKind, choose_layout, has_adapter, load_causal, load_policy, pad, settle, token_logprobs
from errata.models.settings import LORA_FACTOR
from errata.reward import RewardConfig, TokenRewardConfig, load_scorer, train_token_reward
from errata.training import OfflineConfig
from errata.training.hf_trainer import StepTrainer
from errata.tuning import DPOConfig, FIGAConfig, PPOConfig, SFTConfig, train_figa, train_ppo, train_sft
from errata.workflows import LearnConfig
from tuning.ppo_toy import reward_model

pytestmark = pytest.mark.slow

ENCODER = tiny.encoder()
ROWS = tiny.demonstrations(9)
BATCH = pad(tiny.encoded(tiny.demonstrations(7, seed=3), ENCODER), pad_id=0)
peft_warns = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start") / "start")


def learned(model: Any) -> list[str]:
    return [name for name, value in model.named_parameters() if value.requires_grad]


# Learning rates.


FULL = {
    SFTConfig: 1e-5,
    FIGAConfig: 1e-5,
    DPOConfig: 5e-7,
    RewardConfig: 3e-6,
    TokenRewardConfig: 3e-6,
    PPOConfig: 1e-5,
}


@pytest.mark.parametrize(("kind", "rate"), FULL.items(), ids=lambda one: getattr(one, "__name__", None))
def test_a_rate_that_nobody_named_follows_what_is_trained(kind: Any, rate: float, start: Path) -> None:
    full, noted = settle(kind(), start)
    assert (full.learning_rate, noted["learning_rate"], full.rate) == (rate, rate, rate)
    assert noted["learning_rate_is"] == "the default for all weights"
    adapter, noted = settle(kind(lora_rank=2), start)
    assert adapter.learning_rate == noted["learning_rate"] == pytest.approx(rate * LORA_FACTOR)
    assert noted["learning_rate_is"] == "the default for an adapter"
    given, noted = settle(kind(lora_rank=2, learning_rate=3e-4), start)
    assert (given.learning_rate, noted["learning_rate_is"]) == (3e-4, "as given")


def test_the_rate_is_that_of_the_optimizer_and_of_the_record(start: Path, tmp_path: Path) -> None:
    for name, rank, rate in (("full", 0, 1e-5), ("lora", 2, 2e-4)):
        config = SFTConfig(lora_rank=rank, epochs=1, batch_size=9)
        card = train_sft(start, ROWS, ENCODER, config, tmp_path / name)
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        assert line["learning_rate"] == pytest.approx(rate)
        assert (
            json.loads((tmp_path / name / "errata.json").read_text())["learning_rate"] == card["learning_rate"] == rate
        )
        # The same run, whether it was named or not.
        train_sft(
            start, ROWS, ENCODER, SFTConfig(lora_rank=rank, epochs=1, batch_size=9, learning_rate=rate), tmp_path / name
        )


def test_the_console_says_which_rate_was_taken(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    given = ["tune", "sft", f"--model={start}", f"--data={tmp_path / 'rows.jsonl'}", f"--out={tmp_path / 'out'}"]
    assert main([*given, "--lora-rank=2", "--epochs=1", "--batch-size=9", "--learning-rate=auto"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "learning_rate 0.0002 learning_rate_is the default for an adapter" in said
    assert main([*given, "--learning-rate=-1"]) == 1
    assert "--learning-rate -1 is out of range: give a number above 0 (auto is usual)" in capsys.readouterr().err


def test_learn_leaves_the_rate_to_what_it_trains() -> None:
    assert LearnConfig().learning_rate == "auto"


# LoRA's settings.


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("q_proj,v_proj", {"q_proj", "v_proj"}),
        ("down_proj", {"down_proj"}),
        (r".*layers\.1\..*\.(q|k)_proj", {"q_proj", "k_proj"}),
    ],
)
def test_which_layers_get_an_adapter(targets: str, layers: set[str], start: Path, tmp_path: Path) -> None:
    model = load_policy(start, OfflineConfig(lora_rank=2, lora_targets=targets))
    assert {name.split(".")[4] for name in learned(model)} == layers
    upper = {name.split(".")[2] for name in learned(model)}
    assert upper == ({"1"} if "layers" in targets else {"0", "1"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_rank": 2, "lora_targets": "query"}, "--lora-targets query: .* are called down_proj, gate_proj, k_proj"),
        ({"lora_rank": 2, "lora_targets": "(q"}, r"--lora-targets \(q is no regular expression"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "--lora-dropout 1 is out of range"),
        ({"lora_targets": "q_proj"}, "--lora-targets is of an adapter, and all weights are trained; give --lora-rank"),
        ({"lora_dora": True}, "--lora-dora is of an adapter"),
        ({"lora_rslora": True}, "--lora-rslora is of an adapter"),
        ({"lora_alpha": 3}, "--lora-alpha is of an adapter"),
        ({"save": "adapter"}, "--save adapter is of an adapter"),
        ({"attention": "flash_attention_2", "dtype": "bfloat16"}, "--attention flash_attention_2 needs"),
        ({"bf16": True, "dtype": "float32"}, "--bf16 is --dtype bfloat16, and --dtype float32 is given, too"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], words: str, start: Path) -> None:
    for kind in (SFTConfig, PPOConfig):
        with pytest.raises(ValueError, match=words):
            load_policy(start, kind(**settings))


@torch.no_grad()
def test_rslora_scales_by_the_root_of_the_rank(start: Path) -> None:
    scales = {}
    for flag in (False, True):
        model = load_policy(start, OfflineConfig(lora_rank=4, lora_alpha=6, lora_rslora=flag))
        scales[flag] = model.model.layers[0].mlp.up_proj.scaling["default"]
    assert scales == {False: 1.5, True: 3.0}


@pytest.mark.parametrize("base", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("settings", [{"lora_dora": True}, {"lora_rslora": True}, {"lora_dropout": 0.3},
                                      {"lora_targets": "down_proj,c_fc"}], ids=str)  # fmt: skip
@peft_warns
def test_what_is_saved_is_what_was_trained(
    settings: dict[str, Any], base: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Merged, as an adapter of peft, and read again by errata: the same model."""
    start = base(tmp_path / "start")
    pad_ = "<pad>" if base is tiny.llama else "</s>"
    config = FIGAConfig(lora_rank=3, epochs=2, batch_size=6, learning_rate=1e-2, **settings)
    train_figa(start, tiny.labels(12, pad=pad_), tiny.encoder(pad=pad_), config, tmp_path / "out")
    with torch.no_grad():
        merged = token_logprobs(load_causal(tmp_path / "out"), BATCH)
        peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), tmp_path / "out" / "adapter")
        torch.testing.assert_close(token_logprobs(peft.eval(), BATCH), merged, rtol=1e-4, atol=2e-5)
        again = token_logprobs(load_causal(tmp_path / "out" / "adapter"), BATCH)
        torch.testing.assert_close(again, merged, rtol=1e-4, atol=2e-5)
        assert (merged - token_logprobs(load_causal(start), BATCH)).abs().max() > 0.02
    noted = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (noted["use_dora"], noted["use_rslora"]) == (bool(settings.get("lora_dora")), "lora_rslora" in settings)


def test_dropout_is_noise_in_training_alone_and_leaves_sides_apart(start: Path) -> None:
    model = load_policy(start, OfflineConfig(lora_rank=4, lora_dropout=0.5))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    with torch.no_grad():
        assert torch.equal(token_logprobs(model, BATCH), token_logprobs(model, BATCH)), "it comes for evaluation"
        model.train()
        assert not torch.equal(token_logprobs(model, BATCH), token_logprobs(model, BATCH))
    kind, words = choose_layout(model)
    assert (kind, words[:14]) == (LayoutKind.PLAIN, "plain: dropout")
    assert choose_layout(load_policy(start, OfflineConfig(lora_rank=4)))[0] == LayoutKind.TREE


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.3}, {"lora_dora": True, "lora_rslora": True}], ids=str)
def test_killed_it_goes_on_to_the_same_numbers(
    settings: dict[str, Any], start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SFTConfig(
        lora_rank=3, epochs=3, batch_size=3, learning_rate=1e-2, save_every=2, save="adapter", **settings
    )
    train_sft(start, ROWS, ENCODER, config, tmp_path / "whole")
    step = StepTrainer.training_step

    def dies(self: Any, *arguments: Any, **more: Any) -> Any:
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(StepTrainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train_sft(start, ROWS, ENCODER, config, tmp_path / "cut")
    train_sft(start, ROWS, ENCODER, config, tmp_path / "cut")
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# What is written.


@pytest.mark.parametrize("save", ["both", "merged", "adapter"])
@peft_warns
def test_what_is_saved(save: Any, start: Path, tmp_path: Path) -> None:
    config = SFTConfig(lora_rank=2, epochs=1, batch_size=9, learning_rate=1e-2, save=save)
    out = tmp_path / "out"
    card = train_sft(start, ROWS, ENCODER, config, out)
    assert train_sft(start, ROWS, ENCODER, config, out) == card, "a finished one is reused"
    assert (out / "model.safetensors").exists() == (save != "adapter")
    assert (out / "adapter").exists() == (save == "both")
    assert (out / "adapter_model.safetensors").exists() == (save == "adapter")
    for name in ("errata.json", "README.md", "metrics.jsonl", "tokenizer.json", "SHA256SUMS"):
        assert (out / name).exists(), name
    readme = (out / "README.md").read_text()
    assert ("library_name: peft" in readme) == (save == "adapter")
    assert ("`adapter/` holds" in readme) == (save == "both")
    if save == "adapter":
        peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), out).eval()
        plain: Any = AutoModelForCausalLM.from_pretrained(start)
        plain.load_adapter(str(out))  # transformers itself
        with torch.no_grad():
            ours = token_logprobs(load_causal(out), BATCH)
            for other in (peft, plain.eval()):
                torch.testing.assert_close(token_logprobs(other, BATCH), ours, rtol=1e-4, atol=1e-5)
        # The end that was trained is known beside it.
        ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
        assert ENCODER.end_id == ends
        assert card["saved_dtype"] == "float32"


def test_a_reward_adapter_scores_as_the_merged_model(start: Path, tmp_path: Path) -> None:
    rows = [ENCODER.encode(row.prompt, row.response) for row in ROWS]
    scores = {}
    for save in ("both", "adapter"):
        config = TokenRewardConfig(lora_rank=2, epochs=4, batch_size=6, learning_rate=1e-2, save=save)  # type: ignore[arg-type]
        train_token_reward(start, tiny.labels(12), ENCODER, config, tmp_path / save)
        scores[save] = [number for stream in load_scorer(tmp_path / save, ENCODER)(rows) for number in stream]
    assert scores["adapter"] == pytest.approx(scores["both"], abs=1e-5)
    assert max(map(abs, scores["both"])) > 0.1
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("score" in name for name in held)
    # And it is gone on with, head and all.
    on = TokenRewardConfig(epochs=1, batch_size=12, learning_rate=1e-5, save="adapter")
    train_token_reward(tmp_path / "adapter", tiny.labels(12), ENCODER, on, tmp_path / "on")
    after = load_file(tmp_path / "on" / "adapter_model.safetensors")
    assert after.keys() == held.keys()
    assert 0 < max(float((after[name] - held[name]).abs().max()) for name in held) < 1e-3


# PPO.


def test_ppo_takes_the_same_settings(start: Path, tmp_path: Path) -> None:
    reward_model(tmp_path / "reward", tiny.tokenizer())
    few = PPOConfig(
        steps=1, rollouts_per_step=8, minibatch_size=8, max_new_tokens=5, lora_rank=2, lora_dora=True, save="adapter",
        learning_rate=1e-2, evaluate_every=1, best_by="x",
    )  # fmt: skip

    def evaluate(generator: Any, step: int) -> dict[str, float]:
        return {"x": float(step)}

    evaluate.identity = "the step"  # type: ignore[attr-defined]
    prompts = tiny.prompts(8)
    reward = tmp_path / "reward" / "token"
    train_ppo(start, reward, prompts, ENCODER, few, tmp_path / "one", evaluate=evaluate)
    for folder in (tmp_path / "one", tmp_path / "one" / "best"):
        assert (folder / "adapter_model.safetensors").exists()
        assert not has_adapter(load_causal(folder))
    # Going on, the reference of the KL is the adapter that it started from, not the base below it.
    on = replace(few, lora_rank=0, lora_dora=False, learning_rate=1e-4, evaluate_every=0, best_by="")
    train_ppo(tmp_path / "one", reward, prompts, ENCODER, on, tmp_path / "two")
    first = json.loads((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()[1])
    assert first["objective/kl"] == pytest.approx(0, abs=1e-6)
    assert json.loads((tmp_path / "two" / "adapter_config.json").read_text())["use_dora"] is True
    with pytest.raises(ValueError, match="--lora-dropout: PPO compares the policy with itself"):
        train_ppo(start, reward, prompts, ENCODER, replace(few, lora_dropout=0.1), tmp_path / "three")


# What is computed in.


def test_the_old_name_of_bfloat16(start: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="errata"):
        old = SFTConfig(bf16=True)
    assert "--bf16 is the old name of --dtype bfloat16" in caplog.text
    assert old == SFTConfig(dtype="bfloat16")
    caplog.clear()
    assert replace(old, epochs=1).dtype == "bfloat16"
    assert not caplog.text, "it is told once"


def test_in_which_type_the_weights_are_held(start: Path, tmp_path: Path) -> None:
    half = tiny.stored_as(start, tmp_path / "half", torch.bfloat16)
    for settings, frozen in (({}, torch.bfloat16), ({"dtype": "float32"}, torch.float32)):
        model = load_policy(half, OfflineConfig(lora_rank=2, **settings))  # type: ignore[arg-type]
        assert {value.dtype for value in model.parameters() if not value.requires_grad} == {frozen}
        assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
    whole = load_policy(half, OfflineConfig(dtype="bfloat16"))
    assert {value.dtype for value in whole.parameters()} == {torch.float32}, "weights that learn stay float32"


@pytest.mark.parametrize(("attention", "layout"), [("eager", "shared"), ("sdpa", "tree")])
def test_an_attention_that_is_asked_for(attention: Any, layout: str, start: Path, tmp_path: Path) -> None:
    """Either takes a layout that shares what is common, and says the same."""
    config = FIGAConfig(attention=attention, epochs=1, batch_size=12, learning_rate=1e-3)
    assert load_policy(start, config).config._attn_implementation == attention
    card = train_figa(start, tiny.labels(12), ENCODER, config, tmp_path / attention)
    assert card["layout"] == layout
    plain = replace(config, layout="plain")
    train_figa(start, tiny.labels(12), ENCODER, plain, tmp_path / "plain")
    assert tiny.difference(tmp_path / attention, tmp_path / "plain") < 1e-5


def test_generate_and_winrate_take_them_too(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "prompts.jsonl", tiny.prompts(2))
    write_rows(tmp_path / "edits.jsonl", tiny.corrections(4))
    seen: list[tuple[torch.dtype, str]] = []
    import errata.models as models

    load = models.load_causal

    def spy(*arguments: Any, **settings: Any) -> Any:
        model: Any = load(*arguments, **settings)
        seen.append((model.dtype, model.config._attn_implementation))
        return model

    monkeypatch.setattr(models, "load_causal", spy)
    out = tmp_path / "out.jsonl"
    given = ["generate", f"--model={start}", f"--prompts={tmp_path / 'prompts.jsonl'}", f"--out={out}"]
    flags = ["--dtype=bfloat16", "--attention=eager"]
    assert main([*given, "--max-new-tokens=3", *flags]) == 0
    contest = ["winrate", f"--references={tmp_path / 'edits.jsonl'}", f"--candidate={start}", f"--baseline={start}"]
    assert main([*contest, "--max-new-tokens=3", *flags]) == 0
    assert seen == [(torch.bfloat16, "eager")] * 3
    assert main([*given, "--max-new-tokens=3"]) == 1, "in another type they are other answers"
    assert "running was {'attention': 'eager', 'dtype': 'bfloat16'}, is None" in capsys.readouterr().err
    assert main([*given, "--attention=flash_attention_2"]) == 1
    assert "--attention flash_attention_2 needs" in capsys.readouterr().err
