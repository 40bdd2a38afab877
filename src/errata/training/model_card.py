"""The model card: README.md of a trained folder, as the Hugging Face Hub reads it."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from errata.pretrained.load import Origin

__all__ = ["model_card"]

_LOAD = """```python
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("this folder")
tokenizer = AutoTokenizer.from_pretrained("this folder")
```
"""

_LOAD_ADAPTER = """```python
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

model = PeftModel.from_pretrained({auto}.from_pretrained("{base}"), "this folder")
tokenizer = AutoTokenizer.from_pretrained("this folder")
```

The base is named in adapter\\_config.json. Where its own configuration does not stop at the end that was trained, give
`generate` the `eos_token_id` of the generation\\_config.json here.
"""

_LOAD_OURS = "transformers has no class of this kind for this architecture; `errata.reward.load_scorer` loads it.\n"


def model_card(
    card: Mapping[str, Any], settings: Mapping[str, Any], lines: Sequence[Mapping[str, float]], model: Any
) -> str:
    """What was trained from what, on what, how, and with which result, in Markdown under YAML.

    Of paths only the last name is shown. No text of a row is in it, and what is in it is escaped.

    Args:
        card: what ``errata.json`` holds.
        settings: of the training.
        lines: of metrics.jsonl.
        model: as saved.
    """
    stage = str(card.get("stage", "training"))
    origin: Origin | None = getattr(model, "origin", None)
    # The Hub links to a name of its own.
    base = (origin and origin.repo) or Path(str(origin.reference if origin else model.name_or_path)).name
    alone = bool(settings.get("lora_rank")) and settings.get("save") == "adapter"
    head = {
        "base_model": base,
        "library_name": "peft" if alone else "transformers",
        "tags": ["errata", stage, *(["lora"] if settings.get("lora_rank") else [])],
    }
    numbers = {key: value for key, value in card.items() if isinstance(value, int | float | str)}
    labels = {
        f"{side}{name}": count
        for side, key in (("", "labels"), ("held-out ", "heldout_labels"))
        for name, count in card.get(key, {}).items()
        if count and name != "rows"
    }
    saved = card.get("best_step", card.get("steps"))
    evaluated = [line for line in lines if "eval_loss" in line and line["step"] in (0, saved)]
    steps = [line for line in lines if "loss" in line]
    made = re.fullmatch(r".*With(Token|Sequence)ClassificationHead", type(model).__name__)
    auto = re.sub(r".*For", "AutoModelFor", type(model).__name__)
    auto = auto if auto.startswith("AutoModelFor") else "AutoModelForCausalLM"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        f"# {_plain(stage)} from {_plain(base)}\n",
        "Trained by errata from corrections that people made to answers, token by token.\n",
        "".join(f"> **Warning.** {_plain(text)}\n\n" for text in card.get("warnings", [])),
        _LOAD_OURS if made else (_LOAD_ADAPTER if alone else _LOAD).format(auto=auto, base=base),
        "`adapter/` holds the LoRA adapter by itself, for peft; the model here has it merged. Where the base's own "
        "configuration does not stop at the end that was trained, give `generate` the `eos_token_id` of the "
        "generation\\_config.json here.\n"
        if settings.get("lora_rank") and settings.get("save") == "both"
        else "",
        "## Data\n\n" + _table(("what", "count"), {**_of_data(numbers), **labels}.items()),
        "## Result\n\n" + _table(("what", "value"), _of_result(numbers).items()),
        "## Held-out rows, before and after\n\n" + _rows(evaluated) if evaluated else "",
        "## Steps, the first and the last\n\n" + _rows(steps[:1] + steps[1:][-1:]) if steps else "",
        "## Settings\n\n" + _table(("setting", "value"), settings.items()),
    ]
    return "\n".join(part for part in parts if part)


_RESULT = ("steps", "empty_steps", "best_step", "loss", "count", "grad_norm", "fingerprint", "stopped")


def _is_result(key: str) -> bool:
    return key in _RESULT or key.startswith("eval_") or key == "bad_through_gate"


def _of_data(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in numbers.items() if not _is_result(key)}


def _of_result(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in numbers.items() if _is_result(key)}


def _rows(lines: Sequence[Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line))
    body = [[_value(line.get(name, "")) for name in names] for line in lines]
    table = [[_plain(name) for name in names], ["---"] * len(names), *body]
    return "".join(f"| {' | '.join(row)} |\n" for row in table)


def _table(names: tuple[str, str], rows: Any) -> str:
    body = "".join(f"| {_plain(key)} | {_value(value)} |\n" for key, value in rows)
    return f"| {names[0]} | {names[1]} |\n|---|---|\n{body}"


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _plain(value)


def _plain(text: Any) -> str:
    """Text that Markdown and HTML take for nothing else, on one line."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", line)
