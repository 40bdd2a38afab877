"""Direct preference optimization."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["dpo"]


def dpo(
    chosen_logprob_B: Float[Tensor, " B"],
    rejected_logprob_B: Float[Tensor, " B"],
    ref_chosen_logprob_B: Float[Tensor, " B"],
    ref_rejected_logprob_B: Float[Tensor, " B"],
    *,
    beta: float,
) -> Float[Tensor, " B"]:
    """−log σ( β [ log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l) ] ) in nats: Rafailov et al. 2023, Eq 7.

    Args:
        chosen_logprob_B: log π(y_w | x), *summed* over the response (``sequence_sum``), in nats.
        rejected_logprob_B: the same of y_l.
        ref_chosen_logprob_B: the same of y_w under the reference model.
        ref_rejected_logprob_B: the same of y_l under the reference model.
        beta: strength of the tie to the reference model.

    The policy is still the reference, hence log 2; then 10 nats apart at β = .1, hence −log σ(1):

    >>> import torch
    >>> dpo(*torch.tensor([[-7.0], [-9.0], [-7.0], [-9.0]]), beta=0.1)
    tensor([0.6931])
    >>> dpo(*torch.tensor([[-3.0], [-15.0], [-7.0], [-9.0]]), beta=0.1)
    tensor([0.3133])
    """
    chosen_B = chosen_logprob_B - ref_chosen_logprob_B
    rejected_B = rejected_logprob_B - ref_rejected_logprob_B
    return -logsigmoid(beta * (chosen_B - rejected_B))
