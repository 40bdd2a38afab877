"""A folder of a LoRA adapter is a model wherever one is taken: its base is found, and it is merged as by peft."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny
from errata.cli import main
from errata.client import open_chat
from errata.data import write_rows
from errata.data.encoding import load_encoder
from errata.models import (
    ModelConfig,
    has_adapter,
    identity,
    load_causal,
    load_policy,
    load_tokenizer,
    pad,
    save_model,
    settle,
    token_logprobs,
)
from errata.pretrained import find_model
from errata.tuning import SFTConfig, train_sft
from pretrained.hub import REPO, offline, publish

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own

ENCODER = tiny.encoder()
BATCH = pad(tiny.encoded(tiny.demonstrations(5, seed=3), ENCODER), pad_id=0)


def adapter(base: Path, folder: Path, *, seed: int = 0, **settings: Any) -> Path:
    """One that peft made, and that does something."""
    torch.manual_seed(seed)
    config = LoraConfig(
        **{"r": 3, "lora_alpha": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.25)
    model.save_pretrained(folder)
    tiny.edit_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("base") / "start")


@pytest.fixture(scope="module")
def lora(llama: Path) -> Path:
    return adapter(llama, llama.parent / "lora")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "gpt2", "tied", "dora", "rslora", "norms"])
def test_it_is_merged_as_peft_merges_it(kind: str, tmp_path: Path) -> None:
    base = {
        "gpt2": tiny.gpt2,
        "tied": lambda folder: tiny.llama(folder, tie_word_embeddings=True),
    }.get(kind, tiny.llama)(tmp_path / "start")
    settings: dict[str, Any] = {
        "gpt2": {"fan_in_fan_out": True},
        "dora": {"use_dora": True},
        "rslora": {"use_rslora": True},
        "norms": {"modules_to_save": ["norm"], "rank_pattern": {"q_proj": 2}},
    }.get(kind, {})
    lora = adapter(base, tmp_path / "lora", **settings)
    found = load_causal(lora)
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), lora).eval()
    assert not has_adapter(found)
    torch.testing.assert_close(token_logprobs(found, BATCH), token_logprobs(peft, BATCH), rtol=1e-4, atol=1e-5)
    assert (token_logprobs(found, BATCH) - token_logprobs(load_causal(base), BATCH)).abs().max() > 0.1
    assert all(parameter.requires_grad for parameter in found.parameters())


@torch.no_grad()
def test_a_base_in_half_precision_is_merged_in_float32(llama: Path, lora: Path, tmp_path: Path) -> None:
    half = tiny.stored_as(llama, tmp_path / "half", torch.bfloat16)
    there = shutil.copytree(lora, tmp_path / "lora")
    tiny.edit_json(there / "adapter_config.json", base_model_name_or_path=str(half))
    found: Any = load_causal(there)
    held, change = tiny.weights(half), load_file(there / "adapter_model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    delta = 4 * change[f"base_model.model.{name}.lora_B.weight"] @ change[f"base_model.model.{name}.lora_A.weight"]
    expected = (held[f"{name}.weight"].float() + delta).bfloat16()
    assert torch.equal(found.get_parameter(f"{name}.weight"), expected)
    assert {value.dtype for value in found.parameters()} == {torch.bfloat16}
    assert found.dtype == torch.bfloat16
    assert found.model.rotary_emb.inv_freq.dtype == torch.float32
    assert {value.dtype for value in load_causal(there, precision="master").parameters()} == {torch.float32}


def named(lora: Path, base: str, folder: Path, **more: Any) -> Path:
    shutil.copytree(lora, folder)
    tiny.edit_json(folder / "adapter_config.json", base_model_name_or_path=base, **more)
    return folder


def test_its_base_is_found(llama: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, inside = named(lora, "start", tmp_path / "here"), named(lora, "../start", tmp_path / "inside")
    shutil.copytree(llama, tmp_path / "start")
    assert find_model(inside).whole.path.resolve() == (tmp_path / "start").resolve(), "beside the adapter"
    monkeypatch.chdir(tmp_path)
    assert find_model(here).whole.path == Path("start")
    with offline(tmp_path / "hub"):
        first = publish(tmp_path / "hub", llama, "v1")
        hub = named(lora, REPO, tmp_path / "hub_lora", revision="v1")
        assert (find_model(hub).whole.repo, find_model(hub).whole.commit) == (REPO, first)
        assert torch.equal(load_causal(hub).lm_head.weight, load_causal(lora).lm_head.weight)  # type: ignore[union-attr]
        # And the adapter itself may lie on the Hub.
        publish(tmp_path / "hub", hub, repo="acme/lora")
        on_hub: Any = load_causal("acme/lora")
        assert on_hub.origin.repo == "acme/lora"
        assert torch.equal(token_logprobs(on_hub, BATCH), token_logprobs(load_causal(lora), BATCH))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_model_name_or_path": "nothing"}, "is an adapter, and its base nothing .* cannot be found: .* write in"),
        ({"base_model_name_or_path": None}, "it names no base_model_name_or_path"),
        ({"peft_type": "IA3"}, "is an adapter of the kind IA3; errata reads LoRA"),
        ({"r": 5}, "is not of this adapter"),
        ({"target_modules": ["nowhere"]}, "is an adapter of another model than its base here"),
    ],
)
def test_an_adapter_that_cannot_be_used(change: dict[str, Any], words: str, lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path / "lora")
    tiny.edit_json(tmp_path / "lora" / "adapter_config.json", **change)
    with pytest.raises(ValueError, match=words) as caught:
        load_causal(tmp_path / "lora")
    assert str(tmp_path / "lora") in str(caught.value)


def test_an_adapter_of_an_adapter(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which is an adapter itself; merge that one first"):
        find_model(named(lora, str(lora), tmp_path / "upper"))


def test_its_tokenizer_is_its_own_or_its_bases(llama: Path, lora: Path, tmp_path: Path) -> None:
    assert load_encoder(lora).fingerprint == load_encoder(llama).fingerprint
    there = shutil.copytree(lora, tmp_path / "lora")
    own: Any = tiny.tokenizer()
    own.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}</s>"
    own.save_pretrained(there)
    assert load_encoder(there).fingerprint != load_encoder(llama).fingerprint
    assert open_chat(f"local:{there}").server.name.startswith(f"local {there}")


def test_what_tells_it_from_another(llama: Path, lora: Path, tmp_path: Path) -> None:
    base, there = shutil.copytree(llama, tmp_path / "start"), named(lora, "../start", tmp_path / "lora")
    seen = {json.dumps(identity(there))}
    for path in (there / "adapter_model.safetensors", base / "model.safetensors"):
        found = load_file(path)
        found[sorted(found)[0]] += 1
        save_file(found, path, metadata={"format": "pt"})
        seen.add(json.dumps(identity(there)))
    assert len(seen) == 3


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    write_rows(tmp_path / "edits.jsonl", tiny.corrections(16))
    write_rows(tmp_path / "prompts.jsonl", tiny.prompts(3))
    return tmp_path


def test_every_verb_takes_it(llama: Path, lora: Path, rows: Path) -> None:
    """Those that load a model do so by one loader, and those that read its files ask ``find_model``."""
    edits, out = str(rows / "edits.jsonl"), str(rows / "out")
    few = ["--epochs=1", "--batch-size=16"]
    for verb in (
        ["doctor", "--data", edits],
        ["labels", "--edits", edits, "--out", f"{out}.jsonl"],
        ["generate", "--prompts", str(rows / "prompts.jsonl"), "--out", f"{out}.drafts.jsonl", "--max-new-tokens=3"],
        ["reward", "train", "--data", edits, "--out", f"{out}.reward", *few, "--save=both"],
        ["tune", "sft", "--data", edits, "--out", f"{out}.sft", *few],
        ["tune", "dpo", "--data", edits, "--out", f"{out}.dpo", *few],
    ):
        assert main([*verb, "--model", str(lora)]) == 0, verb
    contest = [
        "winrate",
        "--references",
        edits,
        "--max-new-tokens=3",
        "--candidate",
        str(lora),
        "--baseline",
        str(llama),
    ]
    assert main(contest) == 0
    drafts = [json.loads(line)["response"] for line in Path(f"{out}.drafts.jsonl").read_text().splitlines()]
    assert main(["generate", "--model", str(llama), "--prompts", str(rows / "prompts.jsonl"), "--out", f"{out}.b.jsonl",
                 "--max-new-tokens=3"]) == 0  # fmt: skip
    assert drafts != [json.loads(line)["response"] for line in Path(f"{out}.b.jsonl").read_text().splitlines()]


# Going on.


def learns(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def test_training_goes_on_with_the_adapter(llama: Path, lora: Path) -> None:
    """Not with a new one on top of it, nor with all weights: rank, scale and layers are its own."""
    model = load_policy(lora, SFTConfig())
    held = load_file(lora / "adapter_model.safetensors")
    found = learns(model)
    assert len(found) == len(held) == 2 * 2 * 7
    for name, value in found.items():
        assert torch.equal(value, held["base_model.model." + name.replace(".default", "")]), name
    assert (model.peft_config["default"].r, model.peft_config["default"].lora_alpha) == (3, 12)
    assert model.origin.reference == str(llama)
    with torch.no_grad():
        torch.testing.assert_close(token_logprobs(model, BATCH), token_logprobs(load_causal(lora), BATCH))


@pytest.mark.parametrize("flag", [{"lora_rank": 8}, {"lora_alpha": 3}, {"lora_dora": True}, {"lora_targets": "q_proj"}])
def test_what_contradicts_the_adapter_is_refused(flag: dict[str, Any], llama: Path, lora: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is an adapter \(.*training goes on with it as it is; leave that out"
    ) as caught:
        load_policy(lora, SFTConfig(**flag))
    assert f"its base {llama} as --model" in str(caught.value)
    load_policy(lora, SFTConfig(lora_rank=3, lora_alpha=12))


def test_two_runs_of_one_pass_are_a_run_and_one_that_goes_on(llama: Path, tmp_path: Path) -> None:
    """The first step after it moves each weight as AdamW's first does, from where the first run left it."""
    rows, rate = tiny.demonstrations(8), 1e-2
    config = SFTConfig(epochs=1, batch_size=8, learning_rate=rate, save="adapter")
    train_sft(llama, rows, ENCODER, SFTConfig(**{**vars(config), "lora_rank": 3}), tmp_path / "one")
    card = train_sft(tmp_path / "one", rows, ENCODER, config, tmp_path / "two")
    assert (card["goes_on_from"], card["learning_rate"]) == ("one", rate)
    before = load_policy(tmp_path / "one", config)
    whole = pad([ENCODER.encode(row.prompt, row.response) for row in rows], pad_id=0)
    (-token_logprobs(before, whole).sum() / whole.response_mask_BT.sum()).backward()
    norm = torch.stack([p.grad.norm() for p in before.parameters() if p.requires_grad]).norm()
    share = min(1.0, 1.0 / float(norm))
    after = load_file(tmp_path / "two" / "adapter_model.safetensors")
    for name, value in before.named_parameters():
        if value.requires_grad:
            step = rate * share * value.grad / ((share * value.grad).abs() + 1e-8)
            expected = value.detach() - step
            found = after["base_model.model." + name.replace(".default", "")]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    first = json.loads((tmp_path / "one" / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    assert card["loss"] < first


def test_what_goes_on_is_compared_with_where_it_started(llama: Path, tmp_path: Path) -> None:
    """With the adapter off it would be the base, and the KL would not start at 0."""
    rows = tiny.demonstrations(8)
    config = SFTConfig(epochs=1, batch_size=8, learning_rate=3e-2, lora_rank=3)
    train_sft(llama, rows, ENCODER, config, tmp_path / "one")
    card = train_sft(
        tmp_path / "one" / "adapter", rows, ENCODER, SFTConfig(epochs=1, batch_size=8), tmp_path / "two",
        heldout=tiny.labels(4),
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["eval_kl"] == 0
    assert 0 < card["eval_kl"] < 0.01
    assert tiny.difference(tmp_path / "one", tmp_path / "two") > 0
    assert json.loads((tmp_path / "two" / "adapter" / "adapter_config.json").read_text())["r"] == 3


@torch.no_grad()
def test_an_adapter_becomes_a_whole_model(llama: Path, lora: Path, tmp_path: Path) -> None:
    """As docs/training.md says, for a new adapter on top of it or for training all weights."""
    save_model(load_causal(lora), load_tokenizer(lora), tmp_path / "whole")
    assert find_model(tmp_path / "whole").base is None
    assert (tmp_path / "whole" / "config.json").read_bytes() == (llama / "config.json").read_bytes()
    assert torch.equal(token_logprobs(load_causal(tmp_path / "whole"), BATCH), token_logprobs(load_causal(lora), BATCH))
    assert len(learns(load_policy(tmp_path / "whole", SFTConfig(lora_rank=2)))) == 2 * 2 * 7


def test_settings_settle_to_themselves(lora: Path) -> None:
    once, noted = settle(ModelConfig(), lora)
    assert (once.lora_rank, once.lora_alpha, once.learning_rate) == (3, 12, 2e-4)
    assert noted == {
        "goes_on_from": "lora",
        "learning_rate": 2e-4,
        "learning_rate_is": "the default for an adapter",
    }
    assert settle(once, lora)[0] == once
