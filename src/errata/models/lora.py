"""Linear layers with their adapters as one operation: W x + b + s · B A x, without a pass over memory for each part.

A gated feed-forward part is one operation, too: of its wide numbers only the two that cannot be made again cheaply are
kept for the backward pass.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["fuse"]

_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def fuse(model: nn.Module) -> None:
    """Let every frozen linear layer that has an adapter compute as one operation, in place: the same numbers, sooner.

    Feed-forward parts of the form down(act(gate(x)) · up(x)) likewise; it is tried out. A layer stays as it is where it
    has more to it than W, b, A and B: dropout, another kind of adapter or of layer, half precision.
    """
    from peft.tuners.lora import Linear

    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            vars(module)["forward"] = MethodType(_layer, module)
    for module in model.modules():
        if {name for name, _ in module.named_children()} == _GATED and _is_gated(module):
            vars(module)["forward"] = MethodType(_gated, module)


class _Parts(NamedTuple):
    """W (O x I), b (O), A (R x I) and B (O x R) of a layer."""

    weight_OI: Any
    bias_O: Any
    down_RI: Any
    up_OR: Any

    def of(self, x_NI: Float[Tensor, "N I"], scaling: float) -> tuple[Float[Tensor, "N O"], Float[Tensor, "N R"]]:
        """What the layer gives, and A x."""
        low_NR = x_NI @ self.down_RI.T
        out_NO = nn.functional.linear(x_NI, self.weight_OI, self.bias_O)
        return out_NO.addmm_(low_NR, self.up_OR.T, alpha=scaling), low_NR

    def back(
        self, gradient_NO: Tensor, x_NI: Tensor, low_NR: Tensor, scaling: float, wants_x: bool = True
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients of x, A and B."""
        back_NR = (gradient_NO @ self.up_OR).mul_(scaling)
        of_x = (gradient_NO @ self.weight_OI).addmm_(back_NR, self.down_RI) if wants_x else None
        # Transposed, since the product with few rows is the faster one.
        of_up = (low_NR.T @ gradient_NO).mul_(scaling).T.contiguous()
        return of_x, back_NR.T @ x_NI, of_up


def _parts(layer: Any, x: Tensor) -> tuple[_Parts, float] | None:
    """What a layer is made of and its scale; None where it has more to it."""
    names: Any = getattr(layer, "active_adapters", ())
    if len(names) != 1 or layer.disable_adapters or layer.merged or layer.lora_variant:
        return None
    base, name = layer.base_layer, names[0]
    if name not in layer.lora_A or not isinstance(layer.lora_dropout[name], nn.Identity):
        return None
    down, up = layer.lora_A[name], layer.lora_B[name]
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    plain = type(base) is type(down) is nn.Linear and up.bias is None
    if not frozen or not plain or torch.is_autocast_enabled(x.device.type):
        return None
    parts = _Parts(base.weight, base.bias, down.weight, up.weight)
    alike = {x.dtype, *(part.dtype for part in parts if part is not None)}
    return (parts, layer.scaling[name]) if len(alike) == 1 else None


def _layer(layer: Any, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
    found = None if arguments or named else _parts(layer, x)
    if found is None:
        usual: Tensor = type(layer).forward(layer, x, *arguments, **named)
        return usual
    function: Any = _Adapted
    out: Tensor = function.apply(x.reshape(-1, x.shape[-1]), found[1], *found[0])
    return out.view(*x.shape[:-1], -1)


def _gated(module: Any, x: Tensor) -> Tensor:
    found = [_parts(layer, x) for layer in (module.gate_proj, module.up_proj, module.down_proj)]
    if None in found:
        usual: Tensor = type(module).forward(module, x)
        return usual
    parts, scales = zip(*(each for each in found if each is not None), strict=True)
    function: Any = _GatedPart
    flat = x.reshape(-1, x.shape[-1])
    out: Tensor = function.apply(flat, module.act_fn, scales, *(tensor for part in parts for tensor in part))
    return out.view(*x.shape[:-1], -1)


@torch.no_grad()
def _is_gated(module: Any) -> bool:
    """Whether a part of these layers is what their names say."""
    size = getattr(module.gate_proj, "in_features", None)
    weight = next(module.parameters())
    if size is None:
        return False
    noise = torch.randn(2, size, generator=torch.Generator().manual_seed(0)).to(weight)
    usual = type(module).forward(module, noise[None])[0]
    named = module.down_proj(module.act_fn(module.gate_proj(noise)) * module.up_proj(noise))
    return torch.allclose(usual, named, rtol=1e-4, atol=1e-5 * float(usual.abs().max()))


class _Adapted(torch.autograd.Function):
    """W x + b + s · B A x, of which A and B learn."""

    @staticmethod
    def forward(ctx: Any, x_NI: Float[Tensor, "N I"], scaling: float, *parts: Tensor | None) -> Float[Tensor, "N O"]:
        out_NO, low_NR = _Parts(*parts).of(x_NI, scaling)
        ctx.scaling = scaling
        ctx.save_for_backward(x_NI, low_NR, *parts)
        return out_NO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, low_NR, *parts = ctx.saved_tensors
        of_x, of_down, of_up = _Parts(*parts).back(gradient_NO, x_NI, low_NR, ctx.scaling, ctx.needs_input_grad[0])
        return of_x, None, None, None, of_down, of_up


class _GatedPart(torch.autograd.Function):
    """down(act(gate(x)) · up(x)), of which the adapters learn."""

    @staticmethod
    def forward(
        ctx: Any, x_NI: Float[Tensor, "N I"], act: Any, scales: tuple[float, ...], *tensors: Tensor | None | None
    ) -> Float[Tensor, "N I"]:
        gate, up, down = (_Parts(*tensors[k : k + 4]) for k in (0, 4, 8))
        gate_NO, gate_NR = gate.of(x_NI, scales[0])
        up_NO, up_NR = up.of(x_NI, scales[1])
        out_NI, down_NR = down.of(act(gate_NO).mul_(up_NO), scales[2])
        ctx.act, ctx.scales = act, scales
        ctx.save_for_backward(x_NI, gate_NO, up_NO, gate_NR, up_NR, down_NR, *tensors)
        return out_NI

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NI: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, gate_NO, up_NO, gate_NR, up_NR, down_NR, *tensors = ctx.saved_tensors
        gate, up, down = (_Parts(*tensors[k : k + 4]) for k in (0, 4, 8))
        with torch.enable_grad():
            open_NO = ctx.act(leaf_NO := gate_NO.detach().requires_grad_())
        wide_NO, of_down_A, of_down_B = down.back(gradient_NI, open_NO.detach() * up_NO, down_NR, ctx.scales[2])
        assert wide_NO is not None
        (of_gate_NO,) = torch.autograd.grad(open_NO, leaf_NO, wide_NO * up_NO)
        wants_x = ctx.needs_input_grad[0]
        one_NI, *of_gate = gate.back(of_gate_NO, x_NI, gate_NR, ctx.scales[0], wants_x)
        of_up_NO = wide_NO.mul_(open_NO.detach())
        other_NI, *of_up = up.back(of_up_NO, x_NI, up_NR, ctx.scales[1], wants_x)
        of_x = one_NI.add_(other_NI) if one_NI is not None and other_NI is not None else None
        frozen = (None, None)
        return of_x, None, None, *frozen, *of_gate, *frozen, *of_up, *frozen, of_down_A, of_down_B
