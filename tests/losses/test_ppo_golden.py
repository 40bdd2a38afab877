"""PPO's formulas beside two others of them: TRL 1.12.0 on tensors of its own, and a slow twin in plain Python."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from errata import losses

GOLDEN = load_file(Path(__file__).parent / "golden" / "trl_ppo.safetensors")
SETTING = {name: float(value) for name, value in GOLDEN.items() if value.dtype == torch.float64}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def everywhere(like_BT: Tensor) -> Tensor:
    return torch.ones_like(like_BT, dtype=torch.bool)


def test_advantages_and_returns_are_those_of_trl() -> None:
    """A reward on the last token only; TRL's value after the last of a full-length response is 0, as after an end."""
    mask_BT = everywhere(GOLDEN["values"])
    reward_BT = torch.zeros_like(GOLDEN["values"])
    reward_BT[:, -1] = GOLDEN["scores"]
    rho_BT = reward_BT + losses.kl_penalty(
        GOLDEN["logprobs"], GOLDEN["ref_logprobs"], mask_BT, kl_coefficient=SETTING["kl_coef"]
    )
    torch.testing.assert_close(rho_BT, GOLDEN["rewards"], **CLOSE)
    ended_B = torch.ones(len(rho_BT), dtype=torch.bool)
    advantage_BT, return_BT = losses.gae(
        rho_BT,
        GOLDEN["values"],
        mask_BT,
        ended_B,
        torch.full((len(rho_BT),), math.nan),
        discount=SETTING["gamma"],
        gae_lambda=SETTING["lam"],
    )
    torch.testing.assert_close(return_BT, GOLDEN["returns"], **CLOSE)
    count = mask_BT.sum()
    moments = losses.moments(advantage_BT, mask_BT)
    # TRL divides by the sample's deviation, with count - 1; ours is the population's.
    variance = moments.variance * count / (count - 1)
    white_BT = losses.whiten(advantage_BT, mask_BT, mean=moments.mean, variance=variance)
    torch.testing.assert_close(white_BT, GOLDEN["advantages"].to(white_BT), **CLOSE)
    assert GOLDEN["advantages"].abs().max() > 1


def test_losses_are_those_of_trl() -> None:
    mask_BT = everywhere(GOLDEN["mb_values"])
    count = int(mask_BT.sum())
    surrogate_BT = losses.clipped_surrogate(
        GOLDEN["new_logprobs"],
        GOLDEN["mb_logprobs"],
        GOLDEN["mb_advantage"],
        mask_BT,
        clip_range=SETTING["cliprange"],
    )
    value_BT = losses.clipped_value_loss(
        GOLDEN["vpred"], GOLDEN["mb_values"], GOLDEN["mb_return"], mask_BT, clip_range=SETTING["cliprange_value"]
    )
    policy, value = (losses.token_mean(each_BT, mask_BT, num_tokens=count) for each_BT in (surrogate_BT, value_BT))
    torch.testing.assert_close(policy, GOLDEN["pg_loss"], **CLOSE)
    torch.testing.assert_close(value, GOLDEN["vf_loss"], **CLOSE)
    torch.testing.assert_close(policy + SETTING["vf_coef"] * value, GOLDEN["loss"], **CLOSE)
    ratio_BT = (GOLDEN["new_logprobs"] - GOLDEN["mb_logprobs"]).exp()
    assert ((ratio_BT - 1).abs() > SETTING["cliprange"]).float().mean() > 0.2, "the clip is seen"
    moved_BT = (GOLDEN["vpred"] - GOLDEN["mb_values"]).abs()
    assert (moved_BT > SETTING["cliprange_value"]).float().mean() > 0.2


Row = list[float]


def slow_gae(reward: Row, value: Row, ended: bool, bootstrap: float, discount: float, lam: float) -> tuple[Row, Row]:
    """A_t = Σ_l (γλ)^l δ_{t+l}, the sum written out."""
    after = [*value[1:], 0.0 if ended else bootstrap]
    delta = [r + discount * v_next - v for r, v, v_next in zip(reward, value, after, strict=True)]
    advantage = [
        math.fsum((discount * lam) ** (k - t) * delta[k] for k in range(t, len(delta))) for t in range(len(delta))
    ]
    return advantage, [a + v for a, v in zip(advantage, value, strict=True)]


def slow_surrogate(new: float, old: float, advantage: float, clip: float) -> float:
    ratio = math.exp(new) / math.exp(old)
    bounded = min(max(ratio, 1 - clip), 1 + clip)
    return -min(ratio * advantage, bounded * advantage)


def slow_value_loss(value: float, old: float, target: float, clip: float) -> float:
    near = min(max(value, old - clip), old + clip)
    return 0.5 * max((value - target) ** 2, (near - target) ** 2)


@pytest.mark.parametrize("seed", range(6))
def test_a_slow_twin_finds_the_same(seed: int) -> None:
    """Rows of different lengths at different places, garbage around them, float64."""
    rng = random.Random(seed)
    lengths, starts = [1, 4, 7, 2], [2, 0, 3, 5]
    width = 11
    names = ("reward", "value", "old_value", "new", "old", "ref")
    rows = [{name: [rng.uniform(-2, 2) for _ in range(length)] for name in names} for length in lengths]
    ended, bootstrap = [rng.random() < 0.5 for _ in rows], [rng.uniform(-2, 2) for _ in rows]
    mask_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    tensors = {name: torch.full((len(rows), width), math.nan, dtype=torch.float64) for name in names}
    for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
        mask_BT[b, start : start + len(row["new"])] = True
        for name in names:
            tensors[name][b, mask_BT[b]] = torch.tensor(row[name], dtype=torch.float64)
    discount, lam, clip = rng.uniform(0.5, 1), rng.uniform(0.5, 1), 0.3
    advantage_BT, return_BT = losses.gae(
        torch.where(mask_BT, tensors["reward"], 0),
        tensors["value"],
        mask_BT,
        torch.tensor(ended),
        torch.tensor(bootstrap, dtype=torch.float64),
        discount=discount,
        gae_lambda=lam,
    )
    surrogate_BT = losses.clipped_surrogate(tensors["new"], tensors["old"], advantage_BT, mask_BT, clip_range=clip)
    value_BT = losses.clipped_value_loss(tensors["value"], tensors["old_value"], return_BT, mask_BT, clip_range=clip)
    pairs = (tensors["new"], tensors["ref"], mask_BT)
    kls = [kl(*pairs) for kl in (losses.kl_k1, losses.kl_k2, losses.kl_k3)]
    for b, row in enumerate(rows):
        advantage, target = slow_gae(row["reward"], row["value"], ended[b], bootstrap[b], discount, lam)
        expected = [
            advantage,
            target,
            [slow_surrogate(*each, clip) for each in zip(row["new"], row["old"], advantage, strict=True)],
            [slow_value_loss(*each, clip) for each in zip(row["value"], row["old_value"], target, strict=True)],
            [n - r for n, r in zip(row["new"], row["ref"], strict=True)],
            [(n - r) ** 2 / 2 for n, r in zip(row["new"], row["ref"], strict=True)],
            [math.exp(r - n) - 1 - (r - n) for n, r in zip(row["new"], row["ref"], strict=True)],
        ]
        for found_BT, wanted in zip([advantage_BT, return_BT, surrogate_BT, value_BT, *kls], expected, strict=True):
            torch.testing.assert_close(found_BT[b, mask_BT[b]].tolist(), wanted, rtol=1e-9, atol=1e-12)
            assert not found_BT[b, ~mask_BT[b]].any()
