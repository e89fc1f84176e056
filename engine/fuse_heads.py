"""Two heads of a network as one prediction."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from network import TWO_HEADED
from network.ensemble import log_mean_softmax
from utils.types import HEADS, Prediction

How = Literal["logits", "probs", "main", "aux"]


def fused_logits(main: Tensor, aux: Tensor, how: How = "logits", weight_aux: float = 0.5) -> Tensor:
    """The logits of two heads as those of one.

    "logits", as MRNet (Zheng and Yang 2020) is evaluated: main + w aux. "probs":
    log((S(main) + w S(aux)) / (1 + w)) with S the softmax. "main" and "aux": one head alone.

    Args:
        main: (..., C, H, W), of the main head.
        aux: of the same size, of the auxiliary head.
        how: see above.
        weight_aux: w, at least 0.
    """
    if how == "logits":
        return torch.add(main, aux, alpha=weight_aux)
    if how == "probs":
        share = math.log(weight_aux) if weight_aux else -math.inf
        both = torch.logaddexp(main.log_softmax(-3), aux.log_softmax(-3) + share)
        return both - math.log1p(weight_aux)
    return main if how == "main" else aux


def has_two_heads(opts: Namespace) -> bool:
    """Whether the network of the flags has a second head."""
    return bool(opts.aux_head or opts.model in TWO_HEADED)


@dataclass(frozen=True)
class HeadFusion:
    """Joins the heads of every prediction; one of a single head stays as it is.

    Members are joined one by one; the logits are then the log of their mean softmax, and so are
    those of either head.

    Attributes:
        how: see ``fused_logits``.
        weight_aux: of the auxiliary head.
    """

    how: How = "logits"
    weight_aux: float = 0.5

    def __call__(self, prediction: Prediction, needs: frozenset[str] = frozenset()) -> Prediction:
        """The joint prediction, with the logits of both heads only where ``needs`` names them.

        Args:
            prediction: ``logits`` and ``member_logits`` are those of the main head.
            needs: fields that will be read.
        """
        if prediction.member_aux_logits is not None:
            return self._of_members(prediction, prediction.member_aux_logits, needs)
        if prediction.aux_logits is None:
            return prediction
        main, aux = prediction.logits, prediction.aux_logits
        joint = prediction._replace(logits=self._joined(main, aux), aux_logits=None)
        return joint._replace(main_logits=main, aux_logits=aux) if needs & HEADS else joint

    def _of_members(
        self, prediction: Prediction, member_aux_logits: Tensor, needs: frozenset[str]
    ) -> Prediction:
        """The prediction of members with two heads each."""
        assert prediction.member_logits is not None, "members with a second head have a first one"
        main, aux = prediction.member_logits, member_aux_logits
        members = self._joined(main, aux)
        joint = prediction._replace(
            logits=log_mean_softmax(members), member_logits=members, member_aux_logits=None
        )
        if not needs & HEADS:
            return joint
        return joint._replace(main_logits=log_mean_softmax(main), aux_logits=log_mean_softmax(aux))

    def _joined(self, main: Tensor, aux: Tensor) -> Tensor:
        return fused_logits(main, aux, self.how, self.weight_aux)
