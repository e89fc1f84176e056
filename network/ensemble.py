"""Several networks as one: each keeps its weights, their mean softmax is the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from utils.types import SegOutput


def log_mean_softmax(member_logits: Tensor) -> Tensor:
    """Logits whose softmax is the mean of the members' softmaxes.

    Args:
        member_logits: (M, N, C, H, W).

    Returns:
        (N, C, H, W), log((1/M) sum_m softmax(z_m)), so that logsumexp over the classes is 0; of
        one member, its log softmax.
    """
    first, *others = member_logits
    total = first.log_softmax(dim=1)
    for logits in others:  # half the time and a third of the memory of logsumexp over all of them
        total = torch.logaddexp(total, logits.log_softmax(dim=1))
    return total - math.log(len(member_logits))


def joint_temperatures(temperatures: Sequence[Tensor | None]) -> Tensor | None:
    """The temperatures (M, N, 1, H, W) of members; 1 for those without, None if none has any."""
    known = [temperature for temperature in temperatures if temperature is not None]
    if not known:
        return None
    one = torch.ones_like(known[0])
    return torch.stack([one if each is None else each for each in temperatures])


def joint_aux_logits(auxiliary: Sequence[Tensor | None]) -> Tensor | None:
    """Log mean softmax (N, C, H, W) of the members' second heads; None unless all have one."""
    known = [logits for logits in auxiliary if logits is not None]
    return log_mean_softmax(torch.stack(known)) if len(known) == len(auxiliary) else None


class DeepEnsemble(nn.Module):
    """Networks over the same classes that answer together (Lakshminarayanan et al. 2017).

    Args:
        members: networks that return a ``SegOutput``.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        assert len(self.members), "an ensemble has members"

    def member_outputs(
        self, images: Tensor, *, pooled_features: bool = False, at_stride: bool = False
    ) -> list[SegOutput]:
        """What every member says about images (N, 3, H, W), see ``SegmentationModel.forward``."""
        options = {"pooled_features": pooled_features, "at_stride": at_stride}
        return [member(images, **options) for member in self.members]

    def forward(
        self, images: Tensor, pooled_features: bool = False, at_stride: bool = False
    ) -> SegOutput:
        """The ensemble as a single network, as ``SegmentationModel`` is called.

        Returns:
            Logits (N, C, H, W) of the mean softmax, those of the auxiliary heads if all members
            have one, the mean of learned temperatures and, on request, the members' features
            joined.
        """
        outputs = self.member_outputs(images, pooled_features=pooled_features, at_stride=at_stride)
        features = [output.features for output in outputs if output.features is not None]
        temperatures = joint_temperatures([output.temperature for output in outputs])
        return SegOutput(
            log_mean_softmax(torch.stack([output.logits for output in outputs])),
            aux_logits=joint_aux_logits([output.aux_logits for output in outputs]),
            temperature=None if temperatures is None else temperatures.mean(0),
            features=torch.cat(features, dim=1) if features else None,
        )
