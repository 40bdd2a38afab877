from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

import tiny
from client.servers import chat_model
from errata.client import Ask, Stop, open_chat

QUESTION = ({"role": "user", "content": "red cat"},)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose own configuration samples."""
    path = chat_model(tmp_path_factory.mktemp("local") / "tiny")
    config = GenerationConfig.from_pretrained(path)
    config.do_sample = True
    config.save_pretrained(path)
    return path


def texts(folder: Path, **settings: object) -> list[str]:
    """Of three chats that share no ledger, with the program's chance elsewhere each time."""
    ask = Ask(messages=QUESTION, max_tokens=12, **settings)  # type: ignore[arg-type]
    said = []
    for seed in range(3):
        torch.manual_seed(seed)
        said += [answer.text for answer in open_chat(f"local:{folder}")([ask])]
    return said


def test_temperature_and_seed(folder: Path) -> None:
    assert len(set(texts(folder, temperature=0.0))) == 1, "greedy, whatever the model's own configuration says"
    assert len(set(texts(folder, temperature=1.0, seed=1))) == 1
    assert len(set(texts(folder, temperature=1.0))) > 1
    assert texts(folder, temperature=1.0, seed=1) != texts(folder, temperature=1.0, seed=2)


def test_the_random_state_of_the_program_stays(folder: Path) -> None:
    before = torch.get_rng_state()
    open_chat(f"local:{folder}")([Ask(messages=QUESTION, max_tokens=3, temperature=1.0, seed=1)])
    assert torch.equal(torch.get_rng_state(), before)


def test_another_model_in_the_same_folder_is_another(tmp_path: Path) -> None:
    chat_model(tmp_path / "m")
    first = open_chat(f"local:{tmp_path}/m").server.name
    assert open_chat(f"local:{tmp_path}/m").server.name == first
    template = tmp_path / "m" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    second = open_chat(f"local:{tmp_path}/m").server.name
    assert second != first, "another template asks another question"
    tiny.llama(tmp_path / "m", seed=1, hidden_size=32)
    assert open_chat(f"local:{tmp_path}/m").server.name not in (first, second)


def test_what_cannot_be_asked(folder: Path, tmp_path: Path) -> None:
    (answer,) = open_chat(f"local:{folder}")([Ask(messages=({"role": "user", "content": "red " * 2100},))])
    assert answer.stop is Stop.ERROR
    assert "room for 2048" in str(answer.error)
    tiny.llama(tmp_path / "plain")
    with pytest.raises(ValueError, match="no chat template"):
        open_chat(f"local:{tmp_path}/plain")([Ask(messages=QUESTION)])
