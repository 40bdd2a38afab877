from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    CohereConfig,
    Gemma3Config,
    Gemma3TextConfig,
    GraniteConfig,
    Olmo2Config,
    OPTConfig,
    ViTConfig,
)

import tiny
from errata.models import (
    LayoutKind,
    TokenBatch,
    Wanted,
    choose_layout,
    laid_out_scalars,
    lay_out,
    load_sequence_reward_model,
    load_token_reward_model,
    pad,
    save_model,
    sequence_rewards,
    token_rewards,
    token_values,
)
from errata.types import Encoded

ENCODER = tiny.encoder()
ROWS = tiny.encoded(tiny.demonstrations(7, seed=3), ENCODER)
END, PAD = ENCODER.end_id, ENCODER.pad_id

every_model = pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)


def with_head(model: Any) -> Any:
    """A head as after some training: not of zeros."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in ("score", "classifier"):
            torch.nn.init.normal_(parameter)
    return model.eval()


def token_model(folder: Path) -> Any:
    return with_head(load_token_reward_model(folder))


def sequence_model(folder: Path, *, pad_id: int = PAD) -> Any:
    return with_head(load_sequence_reward_model(folder, pad_id=pad_id, end_id=END))


def changed(batch: TokenBatch, b: int, t: int) -> TokenBatch:
    """The batch with another id in one place."""
    ids_BT = batch.ids_BT.clone()
    ids_BT[b, t] = 4 + (ids_BT[b, t] + 1) % 10
    return replace(batch, ids_BT=ids_BT)


@every_model
@torch.no_grad()
def test_a_token_reward_is_read_at_its_own_column(build: Any, tmp_path: Path) -> None:
    model = token_model(build(tmp_path))
    batch = pad(ROWS, pad_id=PAD)
    reward_BT = token_rewards(model, batch)
    assert reward_BT[~batch.response_mask_BT].count_nonzero() == 0
    for b, row in enumerate(ROWS):
        plain_T = model(input_ids=torch.tensor([row.ids])).logits[0, :, 0]
        torch.testing.assert_close(
            reward_BT[b, row.prompt_length : len(row.ids)], plain_T[row.prompt_length :], rtol=1e-4, atol=1e-5
        )
    for b, t in batch.response_mask_BT.nonzero().tolist():
        difference_T = (token_rewards(model, changed(batch, b, t)) - reward_BT)[b]
        assert difference_T[t].abs() > 1e-4, "it has seen the token"
        assert difference_T[:t].abs().max() < 1e-5, "and nothing after it"


@every_model
@torch.no_grad()
def test_a_value_is_read_before_its_token_is_emitted(build: Any, tmp_path: Path) -> None:
    model = token_model(build(tmp_path))
    batch = pad(ROWS, pad_id=PAD)
    value_BT, after_B = token_values(model, batch)
    assert value_BT[~batch.response_mask_BT].count_nonzero() == 0
    for b, row in enumerate(ROWS):
        plain_T = model(input_ids=torch.tensor([row.ids])).logits[0, :, 0]
        torch.testing.assert_close(
            value_BT[b, row.prompt_length : len(row.ids)], plain_T[row.prompt_length - 1 : -1], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(after_B[b], plain_T[-1], rtol=1e-4, atol=1e-5)
    for b, t in batch.response_mask_BT.nonzero().tolist():
        values_BT, afters_B = token_values(model, changed(batch, b, t))
        difference_T = (values_BT - value_BT)[b]
        assert difference_T[: t + 1].abs().max() < 1e-5, "a critic that sees the action biases the gradient"
        assert (afters_B - after_B)[b].abs() > 1e-4
        earlier_T = (token_values(model, changed(batch, b, t - 1))[0] - value_BT)[b]
        assert earlier_T[t].abs() > 1e-4, "but it sees the token before"


@pytest.mark.parametrize("padding", ["distinct", "end of sequence"])
@every_model
@torch.no_grad()
def test_a_sequence_reward_is_read_at_the_last_token(build: Any, padding: str, tmp_path: Path) -> None:
    pad_id = PAD if padding == "distinct" else END
    model = sequence_model(build(tmp_path), pad_id=pad_id)
    batch = pad(ROWS, pad_id=pad_id)
    assert {row.ended for row in ROWS} == {True, False}
    assert len({len(row.ids) for row in ROWS}) > 2
    reward_B = sequence_rewards(model, batch)
    before = model.config.pad_token_id
    one_by_one = [float(sequence_rewards(model, pad([row], pad_id=pad_id))) for row in ROWS]
    assert reward_B.tolist() == pytest.approx(one_by_one, rel=1e-4, abs=1e-5)
    model.config.pad_token_id = None  # so transformers reads the last column
    plain = [float(model(input_ids=torch.tensor([row.ids])).logits) for row in ROWS]
    assert reward_B.tolist() == pytest.approx(plain, rel=1e-4, abs=1e-5)
    assert reward_B.std() > 0.1
    assert before == (None if pad_id == END else PAD), "left as it was"


@torch.no_grad()
def test_a_response_may_end_with_any_id(tmp_path: Path) -> None:
    """Cut off at a token that is the pad id, or id 0, or in a batch with several last ids."""
    model = sequence_model(tiny.llama(tmp_path))
    rows = [replace(ROWS[k % 7], ids=(*ROWS[k % 7].ids, last)) for k, last in enumerate((0, 1, 2, 3, 4, 9))]
    reward_B = sequence_rewards(model, pad(rows, pad_id=PAD))
    model.config.pad_token_id = None
    plain = [float(model(input_ids=torch.tensor([row.ids])).logits) for row in rows]
    assert reward_B.tolist() == pytest.approx(plain, rel=1e-4, abs=1e-5)


@every_model
@torch.no_grad()
def test_with_a_distinct_pad_plain_transformers_gives_the_same_rewards(build: Any, tmp_path: Path) -> None:
    model = sequence_model(build(tmp_path / "start"))
    save_model(model, ENCODER.tokenizer, tmp_path / "out")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert loaded.config.num_labels == 1
    batch = pad(ROWS, pad_id=PAD)
    plain_B1 = loaded(input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long()).logits
    torch.testing.assert_close(plain_B1[:, 0], sequence_rewards(model, batch))


@torch.no_grad()
def test_with_pad_as_end_of_sequence_plain_transformers_refuses_rather_than_errs(tmp_path: Path) -> None:
    model = sequence_model(tiny.gpt2(tmp_path / "start"), pad_id=END)
    save_model(model, tiny.tokenizer(pad="</s>"), tmp_path / "out")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    batch = pad(ROWS, pad_id=END)
    with pytest.raises(ValueError, match="padding token"):
        loaded(input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long())
    single = torch.tensor([ROWS[0].ids])
    torch.testing.assert_close(loaded(single).logits[0], sequence_rewards(model, pad(ROWS[:1], pad_id=END)))


@every_model
@torch.no_grad()
def test_plain_transformers_loads_a_token_reward_model(build: Any, tmp_path: Path) -> None:
    model = token_model(build(tmp_path / "start"))
    save_model(model, ENCODER.tokenizer, tmp_path / "out")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    again = load_token_reward_model(tmp_path / "out").eval()
    batch = pad(ROWS, pad_id=PAD)
    inputs = {"input_ids": batch.ids_BT, "attention_mask": batch.attention_mask_BT.long()}
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
    torch.testing.assert_close(token_rewards(again, batch), token_rewards(model, batch))
    assert token_rewards(again, batch).std() > 0.1, "the head is kept, not made anew"
    names = {path.suffix for path in (tmp_path / "out").iterdir() if path.name != "SHA256SUMS"}
    assert names <= {".json", ".safetensors"}


@every_model
@torch.no_grad()
def test_new_heads_are_of_zeros_on_an_unchanged_backbone(build: Any, tmp_path: Path) -> None:
    folder = build(tmp_path)
    batch = pad(ROWS, pad_id=PAD)
    token = load_token_reward_model(folder)
    sequence = load_sequence_reward_model(folder, pad_id=PAD, end_id=END)
    assert token_rewards(token, batch).count_nonzero() == 0
    assert sequence_rewards(sequence, batch).count_nonzero() == 0
    backbone = {key: value for key, value in tiny.weights(folder).items() if key != "lm_head.weight"}
    assert len(backbone) > 10
    for key, value in backbone.items():
        assert torch.equal(token.state_dict()[key], value)
        assert torch.equal(sequence.state_dict()[key], value)


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
def test_new_heads_learn(build: Any, tmp_path: Path) -> None:
    model = load_token_reward_model(build(tmp_path))
    token_rewards(model, pad(ROWS, pad_id=PAD)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if name.split(".")[0] in ("score", "classifier")}
    assert gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
    **tiny._common("<pad>"),
}
HEADLESS = {
    "opt": lambda: OPTConfig(
        hidden_size=16,
        word_embed_proj_dim=8,  # as in OPT-350m, its last layer projects down
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        init_std=0.3,
        **tiny._common("<pad>"),
    ),
    "olmo2": lambda: Olmo2Config(**SIZES),
    "granite": lambda: GraniteConfig(**SIZES),
    "cohere": lambda: CohereConfig(**SIZES),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, num_key_value_heads=1, head_dim=8, sliding_window=4),
}


@pytest.mark.parametrize("name", HEADLESS)
@torch.no_grad()
def test_where_transformers_has_no_class_the_backbone_gets_a_head(name: str, tmp_path: Path) -> None:
    """As of a stock class: zeros on an unchanged backbone, right columns, and the same again from its folder."""
    start = tiny.save(tmp_path / "start", HEADLESS[name](), 0, "<pad>")
    assert type(AutoConfig.from_pretrained(start)) not in AutoModelForTokenClassification._model_mapping
    batch = pad(ROWS, pad_id=PAD)
    assert token_rewards(load_token_reward_model(start), batch).count_nonzero() == 0
    for model, read in ((token_model(start), token_rewards), (sequence_model(start), sequence_rewards)):
        backbone = AutoModel.from_pretrained(start).state_dict()
        for key, value in backbone.items():
            assert torch.equal(model.base_model.state_dict()[key], value), key
        rewards = read(model, batch)
        assert rewards.std() > 0.01
        save_model(model, ENCODER.tokenizer, tmp_path / read.__name__)
        again = (
            load_token_reward_model(tmp_path / read.__name__)
            if read is token_rewards
            else load_sequence_reward_model(tmp_path / read.__name__, pad_id=PAD, end_id=END)
        ).eval()
        kept = model.state_dict()
        assert again.state_dict().keys() == kept.keys()
        assert all(torch.equal(value, kept[key]) for key, value in again.state_dict().items())
        # The same weights elsewhere in memory may be multiplied in another order.
        torch.testing.assert_close(read(again, batch), rewards, rtol=1e-5, atol=1e-6)
        assert {path.suffix for path in (tmp_path / read.__name__).glob("*.*")} <= {".json", ".safetensors"}
    model = token_model(start)
    hidden_BTD = AutoModel.from_pretrained(start).eval()(batch.ids_BT, batch.attention_mask_BT.long())[0]
    expected_BT = (hidden_BTD @ model.score.weight[0] + model.score.bias).masked_fill(~batch.response_mask_BT, 0)
    torch.testing.assert_close(token_rewards(model, batch), expected_BT, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HEADLESS)
@torch.no_grad()
def test_such_a_model_gives_the_same_in_every_layout(name: str, tmp_path: Path) -> None:
    model = token_model(tiny.save(tmp_path, HEADLESS[name](), 0, "<pad>"))
    assert choose_layout(model)[0] is LayoutKind.TREE
    groups = [[Wanted(one, [True] * len(one.response_ids)) for one in (row, other)] for row, other in pairs_of(ROWS)]
    found = {kind: laid_out_scalars(model, lay_out(groups, kind, pad_id=PAD, predicted=False)) for kind in LayoutKind}
    plain_SK = found[LayoutKind.PLAIN]
    for kind in LayoutKind:
        torch.testing.assert_close(found[kind], plain_SK, rtol=1e-4, atol=1e-5)
    assert plain_SK.std() > 0.01


def pairs_of(rows: list[Encoded]) -> list[tuple[Encoded, Encoded]]:
    """Each row beside one that leaves a token out."""
    return [(row, replace(row, ids=(*row.ids[:-2], row.ids[-1]))) for row in rows if len(row.response_ids) > 1]


def test_such_a_model_learns_with_dropout_off(tmp_path: Path) -> None:
    model = token_model(tiny.save(tmp_path, HEADLESS["opt"](), 0, "<pad>")).train()
    batch = pad(ROWS, pad_id=PAD)
    first, second = token_rewards(model, batch), token_rewards(model, batch)
    assert torch.equal(first, second)
    first.sum().backward()
    assert all(parameter.grad is not None for parameter in model.score.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ViTConfig(hidden_size=8, num_attention_heads=1, intermediate_size=8), "no causal language model for 'vit'"),
        (Gemma3Config(), "reads more than text"),
    ],
    ids=["vit", "gemma3 with images"],
)
def test_what_reads_no_text_from_left_to_right_is_refused(config: Any, message: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_token_reward_model(tmp_path)


def test_a_backbone_that_is_not_filled_is_an_error(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path)
    weights = tiny.weights(folder)
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing.*model\.norm\.weight"):
        load_token_reward_model(folder)
