"""SGD that updates some tensors several times a step, as a published parameter list makes it do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def listed_times(stages: Iterable[nn.Module]) -> dict[nn.Parameter, int]:
    """How often a walk over modules and then over all their parameters lists each parameter.

    Every module of a stage, the stage itself included, lists all the parameters inside it: a
    convolution of a residual block in a stage is listed by the stage, the block and itself.
    """
    times: dict[nn.Parameter, int] = {}
    for stage in stages:
        for module in stage.modules():
            for parameter in module.parameters():
                times[parameter] = times.get(parameter, 0) + 1
    return times


class RepeatedSGD(Optimizer):
    """Nesterov SGD whose parameters are updated one, three or four times with one gradient.

    The repeats of a tensor share one momentum buffer and follow each other; weight decay is added
    to the gradient at every repeat and stays in it, as the first releases of PyTorch did:
    g <- g + wd p; b <- m b + g (at first b = g); p <- p - lr (g + m b).

    Args:
        groups: as every optimizer takes them.
        lr: of groups without their own.
        momentum: m.
        weight_decay: wd.
        times: how often each parameter is updated; 1 for those that are not there.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float,
        weight_decay: float,
        times: Mapping[nn.Parameter, int],
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.times = dict(times)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter with a gradient; the scaler skips steps that are not finite."""
        assert closure is None, "one backward pass a step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.clone(), group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """All repeats of one parameter."""
        state = self.state[parameter]
        for _ in range(self.times.get(parameter, 1)):  # type: ignore[call-overload]
            gradient.add_(parameter, alpha=group["weight_decay"])
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = gradient.clone()
            else:
                state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
            direction = gradient.add(state["momentum_buffer"], alpha=group["momentum"])
            parameter.add_(direction, alpha=-group["lr"])
