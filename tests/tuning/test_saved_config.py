"""What is saved beside the weights: as it came, with the end that was trained, and readable by whom the umask says."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import tiny
from data.chats import ALL_CONTROL, CHATML
from errata.client import Ask, Stop, open_chat
from errata.data import Encoder
from errata.data.encoding import load_encoder
from errata.doctor import Severity, examine, read_model_facts
from errata.labels import label_all
from errata.models import load_causal
from errata.models import save_model as save
from errata.reward import TokenRewardConfig, train_token_reward
from errata.tuning import DPOConfig, FIGAConfig, PPOConfig, SFTConfig, train_dpo, train_figa, train_ppo, train_sft
from errata.types import Correction, Demonstration, PromptRow, TokenLabels
from tuning.ppo_toy import pays_for_cats

pytestmark = pytest.mark.slow

QUESTION = "say"
ROWS = [Correction(id=f"c{k}", prompt=QUESTION, original="one rude two", edited="one two") for k in range(8)]


def talks(folder: Path, **config: Any) -> Path:
    """A ChatML model of tiny's words whose configurations stop at </s>, as many a base model's do."""
    built = tiny.tokenizer()
    built.add_special_tokens({"additional_special_tokens": list(ALL_CONTROL)}, replace_extra_special_tokens=False)
    built.chat_template = CHATML
    tiny.llama(folder, vocab_size=len(built), **config)
    built.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talks(tmp_path_factory.mktemp("chat") / "start")


@pytest.fixture(scope="module")
def encoder(start: Path) -> Encoder:
    return load_encoder(start)


def cut_before_the_end(start: Path) -> Encoder:
    """No response of ROWS has its end."""
    longest = len(load_encoder(start).encode(QUESTION, "one two").ids) - 1
    return load_encoder(start, max_length=longest, on_long="truncate")


def eos(folder: Path) -> list[Any]:
    return [
        json.loads((folder / name).read_text()).get("eos_token_id")
        for name in ("config.json", "generation_config.json")
    ]


FEW: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
IMITATED = [Demonstration(id=f"d{k}", prompt=QUESTION, response="one two") for k in range(8)]


def labels(encoder: Encoder) -> list[TokenLabels]:
    return list(label_all(ROWS, encoder))


METHODS: dict[str, Callable[..., Any]] = {
    "sft": lambda start, encoder, out, **more: train_sft(start, IMITATED, encoder, SFTConfig(**FEW | more), out),
    "figa": lambda start, encoder, out, **more: train_figa(
        start, labels(encoder), encoder, FIGAConfig(**FEW | more), out
    ),
    "dpo": lambda start, encoder, out, **more: train_dpo(start, ROWS, encoder, DPOConfig(**FEW | more), out),
    "ppo": lambda start, encoder, out, **more: train_ppo(
        start,
        pays_for_cats,
        [PromptRow(id=f"p{k}", prompt=QUESTION) for k in range(8)],
        encoder,
        PPOConfig(steps=1, rollouts_per_step=32, minibatch_size=32, max_new_tokens=30, **more),
        out,
    ),
}


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_the_trained_end_is_added(method: str, rank: int, start: Path, encoder: Encoder, tmp_path: Path) -> None:
    end = encoder.end_id
    assert (encoder.tokenizer.convert_ids_to_tokens(end), eos(start)) == ("<|im_end|>", [2, 2])
    METHODS[method](start, encoder, tmp_path / "out", lora_rank=rank)
    assert eos(tmp_path / "out") == [[2, end], [2, end]]
    before, after = (json.loads((each / "config.json").read_text()) for each in (start, tmp_path / "out"))
    assert {**after, "eos_token_id": 2} == before, "and nothing else is changed, the pad token not either"
    METHODS[method](tmp_path / "out", encoder, tmp_path / "again")
    assert eos(tmp_path / "again") == [[2, end], [2, end]], "once"


def test_an_end_that_was_never_trained_is_not_added(start: Path, tmp_path: Path) -> None:
    cuts = cut_before_the_end(start)
    assert not any(row.edited.encoded.ended for row in labels(cuts))
    METHODS["sft"](start, cuts, tmp_path / "sft")
    METHODS["figa"](start, cuts, tmp_path / "figa")
    whole = load_encoder(start)
    METHODS["figa"](start, whole, tmp_path / "weightless", end_weight=0.0)
    METHODS["dpo"](start, cuts, tmp_path / "dpo")
    for name in ("sft", "figa", "weightless", "dpo"):
        assert eos(tmp_path / name) == [2, 2], name
        assert (tmp_path / name / "config.json").read_bytes() == (start / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": [2, 3]}, {"eos_token_id": 2}, [[2, 3, "end"], [2, "end"]]),
        ({"eos_token_id": None}, {"eos_token_id": None}, ["end", "end"]),
        ({"eos_token_id": "end"}, {"eos_token_id": [5, "end"]}, ["end", [5, "end"]]),
        ({}, None, [[2, "end"], [2, "end"]]),
    ],
)
def test_what_stood_there_is_kept(
    config: Any, generation: Any, expected: list[Any], encoder: Encoder, tmp_path: Path
) -> None:
    def filled(value: Any) -> Any:
        many = [filled(each) for each in value] if isinstance(value, list) else None
        return many or (encoder.end_id if value == "end" else value)

    folder = talks(tmp_path / "start")
    tiny.edit_json(folder / "config.json", **{key: filled(value) for key, value in config.items()})
    if generation is None:
        (folder / "generation_config.json").unlink()
    else:
        tiny.edit_json(folder / "generation_config.json", **{key: filled(value) for key, value in generation.items()})
    METHODS["sft"](folder, encoder, tmp_path / "out")
    assert eos(tmp_path / "out") == filled(expected)


def test_plain_generate_and_local_stop(start: Path, encoder: Encoder, tmp_path: Path) -> None:
    """They write on to the limit where the configurations do not name the end: the same model shows it."""
    METHODS["sft"](start, encoder, tmp_path / "out", epochs=60, learning_rate=1e-2)
    asked = torch.tensor([encoder.prompt_ids(QUESTION)])

    def written() -> list[int]:
        model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        return list(model.generate(asked, do_sample=False, max_new_tokens=20)[0, asked.shape[1] :].tolist())

    ask = Ask(messages=({"role": "user", "content": QUESTION},), max_tokens=20)
    (answer,) = open_chat(f"local:{tmp_path / 'out'}")([ask])
    assert (answer.text, answer.stop) == ("one two", Stop.END)
    assert encoder.decode(written()) == "one two"
    assert written()[-1] == encoder.end_id
    for name in ("config.json", "generation_config.json"):
        tiny.edit_json(tmp_path / "out" / name, eos_token_id=2)
    assert len(written()) == 20


def test_the_doctor_says_so_before_training(start: Path, encoder: Encoder, tmp_path: Path) -> None:
    diagnosis = examine(ROWS, encoder, model=read_model_facts(start))
    (found,) = [each for each in diagnosis.findings if each.name == "end_not_in_config"]
    assert "generation_config does not stop at the trained end '<|im_end|>'" in found.what
    assert found.severity is Severity.NOTE
    assert "errata adds it" in found.remedy
    METHODS["sft"](start, encoder, tmp_path / "out")
    for rows, kind, folder in (
        (ROWS, "figa", tmp_path / "out"),
        (ROWS, "reward", start),
        (ROWS, "figa", None),
    ):
        facts = None if folder is None else read_model_facts(folder)
        assert "end_not_in_config" not in examine(rows, encoder, method=kind, model=facts).names()  # type: ignore[arg-type]
    cuts = cut_before_the_end(start)
    assert "end_not_in_config" not in examine(ROWS, cuts, model=read_model_facts(start)).names()


# Everything else is saved as it came.


@pytest.mark.parametrize("method", ["sft", "figa", "dpo", "ppo"])
@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
def test_configurations_come_back_byte_for_byte(method: str, build: Any, tmp_path: Path) -> None:
    """GPT-2's dropouts, the cache, keys that transformers does not know, and settings that it would refuse to write."""
    start = build(tmp_path / "start")
    tiny.edit_json(start / "config.json", _note="kept", use_cache=True)
    tiny.edit_json(start / "generation_config.json", temperature=0.6, top_p=0.9, eos_token_id=[2])
    before = {name: (start / name).read_bytes() for name in ("config.json", "generation_config.json")}
    if build is tiny.gpt2:
        assert json.loads(before["config.json"])["resid_pdrop"] == 0.1
    more = {} if method == "ppo" else {"gradient_checkpointing": True}
    METHODS[method](start, tiny.encoder(), tmp_path / "out", **more)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before


def test_a_type_that_is_asked_for_is_all_that_changes(tmp_path: Path) -> None:
    start = tiny.gpt2(tmp_path / "start")
    METHODS["sft"](start, tiny.encoder(), tmp_path / "out", save_dtype="bfloat16")
    before, after = (json.loads((each / "config.json").read_text()) for each in (start, tmp_path / "out"))
    assert after == {**before, "dtype": "bfloat16"}


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
def test_a_reward_model_changes_what_a_head_changes(build: Any, tmp_path: Path) -> None:
    start = build(tmp_path / "start")
    train_token_reward(start, tiny.labels(8), tiny.encoder(), TokenRewardConfig(**FEW), tmp_path / "out")
    before, after = (json.loads((each / "config.json").read_text()) for each in (start, tmp_path / "out"))
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed == {"architectures", "id2label", "label2id"}
    assert after["architectures"][0].endswith("ForTokenClassification")


def test_a_model_of_no_folder_is_saved_as_transformers_does(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=18, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    save(AutoModelForCausalLM.from_config(config), tiny.tokenizer(), tmp_path / "out", ends=[2, 9])
    assert eos(tmp_path / "out") == [[2, 9], [2, 9]]
    assert load_causal(tmp_path / "out") is not None


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o007, 0o077], indirect=True)
def test_the_umask_says_who_may_read(umask: int, tmp_path: Path) -> None:
    """safetensors writes by way of a temporary file, which is for its owner alone."""
    start = tiny.llama(tmp_path / "start")
    METHODS["sft"](start, tiny.encoder(), tmp_path / "out", lora_rank=2)
    METHODS["ppo"](start, tiny.encoder(), tmp_path / "ppo")
    for folder in (tmp_path / "out", tmp_path / "ppo"):
        found = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
        assert len(found) > 6
        wrong = {
            path.name: oct(mode) for path, mode in found.items() if mode != (0o777 if path.is_dir() else 0o666) & ~umask
        }
        assert not wrong
