"""PPO on per-token rewards: KL estimators, reward, advantages, clipped losses.

Equation 4 is of Xu et al., ACL 2024, arXiv 2406.02756; the rest is standard PPO (Schulman et al. 2017). The sampling
policy is ``old``, the frozen supervised one ``ref``. Column t of a value stream is V(s_t), which is read *before* y_t
is emitted (``errata.models`` shifts it); the reward of y_t stands in column t too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = [
    "clipped_surrogate",
    "clipped_value_loss",
    "gae",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty",
]


def kl_k1(
    logprob_BT: Float[Tensor, "B T"], ref_logprob_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """d_t = log π(y_t) − log π_ref(y_t) in nats, 0 outside the mask; Schulman 2020, "Approximating KL divergence", k1.

    On samples of π its mean is KL(π ‖ π_ref), though single values have either sign.

    >>> kl_k1(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-3.0, -1.5]]), torch.tensor([[True, True]]))
    tensor([[ 2.0000, -0.5000]])
    """
    return torch.where(mask_BT, logprob_BT - ref_logprob_BT, 0)


def kl_k2(
    logprob_BT: Float[Tensor, "B T"], ref_logprob_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """d_t²/2 in nats, with ``kl_k1``'s d; 0 outside the mask. Biased, never negative.

    >>> kl_k2(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-3.0, -1.5]]), torch.tensor([[True, True]]))
    tensor([[2.0000, 0.1250]])
    """
    return kl_k1(logprob_BT, ref_logprob_BT, mask_BT).square() / 2


def kl_k3(
    logprob_BT: Float[Tensor, "B T"], ref_logprob_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """exp(−d_t) − 1 + d_t in nats, with ``kl_k1``'s d; 0 outside the mask. Unbiased on samples of π, never negative.

    At d = 2: e⁻² + 1 = 1.1353.

    >>> kl_k3(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-3.0, -2.0]]), torch.tensor([[True, True]]))
    tensor([[1.1353, 0.0000]])
    """
    d_BT = kl_k1(logprob_BT, ref_logprob_BT, mask_BT)
    return torch.expm1(-d_BT) + d_BT


def kl_penalty(
    old_logprob_BT: Float[Tensor, "B T"],
    ref_logprob_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    kl_coefficient: float,
    estimator: Callable[..., Tensor] = kl_k1,
) -> Float[Tensor, "B T"]:
    """−β (log π_old(y_t) − log π_ref(y_t)), 0 outside the mask: what Xu et al. Eq 4 adds to the reward of token t.

    ρ_t = r(x, [y]_t) + ``kl_penalty``. The ordinary sequence reward is the case of one r, at the last token.

    Args:
        old_logprob_BT: log-probability under the policy that sampled, in nats.
        ref_logprob_BT: log-probability under the supervised model, in nats.
        mask_BT: True on the response.
        kl_coefficient: β, in reward per nat.
        estimator: of the KL; ``kl_k1`` is that of Eq 4.

    >>> old_logprob_BT, ref_logprob_BT = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-3.0, -2.5]])
    >>> kl_penalty(old_logprob_BT, ref_logprob_BT, torch.tensor([[True, True]]), kl_coefficient=0.5)
    tensor([[-1.0000, -0.2500]])
    """
    return -kl_coefficient * estimator(old_logprob_BT, ref_logprob_BT, mask_BT)


def gae(
    reward_BT: Float[Tensor, "B T"],
    value_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    ended_B: Bool[Tensor, " B"],
    bootstrap_B: Float[Tensor, " B"],
    *,
    discount: float,
    gae_lambda: float,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Generalized advantage estimation: A_t and the returns A_t + V_t, both 0 outside the mask and without gradient.

    δ_t = ρ_t + γ V_{t+1} − V_t,  A_t = Σ_{l≥0} (γλ)^l δ_{t+l}  (Schulman et al. 2016, Eq 16). After the end of
    sequence V is 0; after the last token of a truncated response it is ``bootstrap_B``.

    Args:
        reward_BT: ρ of token t.
        value_BT: V(s_t), the critic's word before token t is emitted.
        mask_BT: True on the response: one contiguous run a row, anywhere; a row without any gives zeros.
        ended_B: whether the last token of the response is the end of sequence.
        bootstrap_B: the critic's value of the state after the last token; ignored where the response ended.
        discount: γ.
        gae_lambda: λ.

    Returns:
        ``(advantage_BT, return_BT)``, in units of reward.

    Raises:
        ValueError: if the mask of a row has a hole.

    γ = λ = ½, two tokens and EOS reached: δ_2 = 4 − 2 = 2, δ_1 = 0 + ½·2 − 1 = 0, A_1 = 0 + ¼·2 = ½.

    >>> advantage_BT, return_BT = gae(
    ...     torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[True, True]]),
    ...     torch.tensor([True]), torch.tensor([9.0]), discount=0.5, gae_lambda=0.5,
    ... )
    >>> advantage_BT, return_BT
    (tensor([[0.5000, 2.0000]]), tensor([[1.5000, 4.0000]]))
    """
    runs_B = (mask_BT & ~pad(mask_BT, (1, 0))[:, :-1]).sum(dim=1)
    if bool((runs_B > 1).any()):
        row = int((runs_B > 1).nonzero()[0])
        raise ValueError(
            f"mask_BT[{row}] has {int(runs_B[row])} runs of True: advantages are of one response a row; "
            "mask all tokens of the response and nothing else"
        )
    with torch.no_grad():
        value_BT = torch.where(mask_BT, value_BT, 0)
        advantage_BT = torch.zeros_like(value_BT)
        next_value_B = torch.where(ended_B, 0, bootstrap_B)
        next_advantage_B = torch.zeros_like(bootstrap_B)
        for t in reversed(range(mask_BT.shape[1])):
            delta_B = reward_BT[:, t] + discount * next_value_B - value_BT[:, t]
            advantage_B = delta_B + discount * gae_lambda * next_advantage_B
            # Padding passes on what stands to its right, so the bootstrap reaches the last token of any row.
            next_value_B = torch.where(mask_BT[:, t], value_BT[:, t], next_value_B)
            next_advantage_B = torch.where(mask_BT[:, t], advantage_B, next_advantage_B)
            advantage_BT[:, t] = torch.where(mask_BT[:, t], advantage_B, 0)
        return advantage_BT, advantage_BT + value_BT


def clipped_surrogate(
    logprob_BT: Float[Tensor, "B T"],
    old_logprob_BT: Float[Tensor, "B T"],
    advantage_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    clip_range: float,
) -> Float[Tensor, "B T"]:
    """−min( w_t A_t, clip(w_t, 1−ε, 1+ε) A_t ), where w_t = π(y_t)/π_old(y_t); 0 outside the mask.

    Schulman et al. 2017, Eq 7, as a loss. Where π = π_old its gradient is that of REINFORCE with the advantages A.

    Args:
        logprob_BT: log-probability under the policy in training, in nats.
        old_logprob_BT: log-probability under the policy that sampled, in nats.
        advantage_BT: A of token t, a constant.
        mask_BT: True on the response.
        clip_range: ε.

    The policy gives both tokens twice the old probability; the clip stops the gain at 1.2, not the loss:

    >>> logprob_BT, old_logprob_BT = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.25]]).log()
    >>> advantage_BT, mask_BT = torch.tensor([[1.0, -1.0]]), torch.tensor([[True, True]])
    >>> clipped_surrogate(logprob_BT, old_logprob_BT, advantage_BT, mask_BT, clip_range=0.2)
    tensor([[-1.2000,  2.0000]])
    """
    ratio_BT = torch.where(mask_BT, logprob_BT - old_logprob_BT, 0).exp()
    advantage_BT = torch.where(mask_BT, advantage_BT, 0)
    return -torch.minimum(ratio_BT * advantage_BT, ratio_BT.clamp(1 - clip_range, 1 + clip_range) * advantage_BT)


def clipped_value_loss(
    value_BT: Float[Tensor, "B T"],
    old_value_BT: Float[Tensor, "B T"],
    return_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    clip_range: float,
) -> Float[Tensor, "B T"]:
    """½ max( (V_t − R_t)², (V_old,t + clip(V_t − V_old,t, ±ε_V) − R_t)² ), 0 outside the mask.

    The value loss of common PPO code, AlpacaFarm's too; it is not in Schulman et al. 2017.

    Args:
        value_BT: V(s_t) of the critic in training.
        old_value_BT: V(s_t) of the critic at sampling time.
        return_BT: R_t, from ``gae``, a constant.
        mask_BT: True on the response.
        clip_range: ε_V, in units of reward.

    V moved from 0 to 1 and overshoots R = 0 there; in the second column R = 3, and only the move of .2 is granted:

    >>> value_BT, old_value_BT, return_BT = torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2), torch.tensor([[0.0, 3.0]])
    >>> clipped_value_loss(value_BT, old_value_BT, return_BT, torch.tensor([[True, True]]), clip_range=0.2)
    tensor([[0.5000, 3.9200]])
    """
    value_BT = torch.where(mask_BT, value_BT, 0)
    old_value_BT = torch.where(mask_BT, old_value_BT, 0)
    return_BT = torch.where(mask_BT, return_BT, 0)
    clipped_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip_range, clip_range)
    return torch.maximum((value_BT - return_BT).square(), (clipped_BT - return_BT).square()) / 2
