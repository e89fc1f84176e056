"""What every backbone shares: tapped features, dropout and activation checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class Feature(NamedTuple):
    """Where a feature of a backbone is read."""

    layer: str  # the stage whose output it is
    channels: int


@contextmanager
def frozen_statistics(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Leave the running statistics of batch norms as they are; outputs stay the same.

    The norms still run their update, with momentum 0 and on a spare counter, because a
    recomputation must save the same tensors as the first run.
    """
    kept = [
        (module, module.momentum, module.num_batches_tracked)
        for root in modules
        for module in root.modules()
        if isinstance(module, BATCH_NORMS) and module.num_batches_tracked is not None
    ]
    for norm, _, counter in kept:
        norm.momentum = 0.0
        norm.num_batches_tracked = torch.zeros_like(counter)
    try:
        yield
    finally:
        for norm, momentum, counter in reversed(kept):
            norm.momentum = momentum
            norm.num_batches_tracked = counter


def checkpointed(function: Callable[[Any], Any], x: Any, modules: Sequence[nn.Module]) -> Any:
    """Run a function of ``modules`` now and again in the backward pass, to save memory.

    Outputs, gradients and dropout masks are those of the plain call, and running statistics are
    updated once: the second run leaves them alone.
    """
    if torch.compiler.is_compiling():  # the compiler recomputes the arithmetic only
        return checkpoint(function, x, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(modules)

    return checkpoint(function, x, use_reentrant=False, context_fn=contexts)


class Backbone(nn.Module):
    """A feature extractor from images to the features ``low_level``, ``aux`` and ``out``.

    Args:
        features: layer and channels of the three features.
        dropout: probability of dropout after each stage, in training mode.
        checkpoint_activations: recompute each stage in the backward pass instead of keeping its
            activations.
    """

    smallest_input = 1  # least height and width of an image

    def __init__(
        self,
        features: Mapping[str, Feature],
        *,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.taps = dict(features)
        self.checkpoint_activations = checkpoint_activations
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """The stages in order, each a name and the modules to run one after the other."""
        raise TypeError(f"{type(self).__name__} lists no stages")

    def feature(self, name: str, x: Any) -> Tensor:
        """The feature ``name`` from the output of its stage."""
        assert name in self.taps
        return x

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of normalised images (N, 3, H, W), each (N, channels, h, w)."""
        features: dict[str, Tensor] = {}
        x: Any = images
        for layer, modules in self.stages():
            x = self._run(modules, x)
            for name, tap in self.taps.items():
                if tap.layer == layer:
                    features[name] = self.feature(name, x)
        return features

    def _run(self, modules: Sequence[nn.Module], x: Any) -> Any:
        def stage(x: Any) -> Any:
            for module in modules:
                x = module(x)
            return (
                [self.dropout(branch) for branch in x] if isinstance(x, list) else self.dropout(x)
            )

        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpointed(stage, x, modules)
        return stage(x)
