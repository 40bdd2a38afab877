from __future__ import annotations

from pathlib import Path

import torch

import tiny
from errata.models import critic_values, load_critic, pad, token_values

ENCODER = tiny.encoder()
BATCH = pad(tiny.encoded(tiny.demonstrations(5, seed=2), ENCODER), pad_id=ENCODER.pad_id)


def critic(folder: Path, *, heads: int) -> torch.nn.Module:
    """With heads of noise, for those of zeros would say nothing."""
    model = load_critic(tiny.llama(folder), heads=heads)
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


@torch.no_grad()
def test_a_value_does_not_change_when_its_token_does(tmp_path: Path) -> None:
    """V_t is read before y_t: it may know y_<t and nothing after."""
    model = critic(tmp_path, heads=2)
    before_HBT, _ = critic_values(model, BATCH)
    for column in range(1, BATCH.ids_BT.shape[1]):
        ids_BT = BATCH.ids_BT.clone()
        ids_BT[:, column] = (ids_BT[:, column] + 3) % 18
        after_HBT, _ = critic_values(model, type(BATCH)(ids_BT, BATCH.attention_mask_BT, BATCH.response_mask_BT))
        assert torch.equal(after_HBT[..., : column + 1], before_HBT[..., : column + 1])
        changed = BATCH.response_mask_BT[:, column + 1 :]
        if changed.any():
            assert (after_HBT[..., column + 1 :] != before_HBT[..., column + 1 :])[:, changed].any(), (
                "but the next does"
            )


@torch.no_grad()
def test_one_head_is_the_critic_as_it_was(tmp_path: Path) -> None:
    model = critic(tmp_path, heads=1)
    (value_HBT, after_HB), (value_BT, after_B) = critic_values(model, BATCH), token_values(model, BATCH)
    assert value_HBT.shape == (1, *BATCH.ids_BT.shape)
    assert torch.equal(value_HBT[0], value_BT)
    assert torch.equal(after_HB[0], after_B)
    assert len(set(after_B.tolist())) > 1


@torch.no_grad()
def test_every_head_starts_as_the_one_that_was_saved(tmp_path: Path) -> None:
    critic(tmp_path / "start", heads=1).save_pretrained(tmp_path / "critic")
    one, many = (load_critic(tmp_path / "critic", heads=heads) for heads in (1, 3))
    value_HBT, after_HB = critic_values(many, BATCH)
    for head in range(3):
        torch.testing.assert_close(value_HBT[head], critic_values(one, BATCH)[0][0])
        torch.testing.assert_close(after_HB[head], critic_values(one, BATCH)[1][0])
    with torch.no_grad():
        many.score.weight[1] = 0
    assert not critic_values(many, BATCH)[0][1].any(), "they are apart"
