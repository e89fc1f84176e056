"""A dense CRF on predictions: what URN's masks and evaluation refine every mean of passes with."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.transforms import denormalize
from uncertainty.dense_crf import CrfSettings, DenseCRF, unary_of
from utils.types import Predict, Prediction


class RefinedByCrf:
    """Predictions whose distribution a dense CRF has refined on the image's colours.

    The members, temperatures and heads that a distribution came from have no part in what the CRF
    makes of it, so they are left out; pooled features stay.

    Args:
        predict: what is refined.
        settings: of the CRF.
    """

    def __init__(self, predict: Predict, settings: CrfSettings) -> None:
        self.predict = predict
        self.settings = settings

    def __call__(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """Predict normalised images (N, 3, H, W) at their own size; logits are log marginals."""
        prediction = self.predict(images, needs)
        probabilities = prediction.logits.float().softmax(1)
        marginals = [
            DenseCRF(image, self.settings)(unary_of(one[None]))
            for image, one in zip(denormalize(images), probabilities, strict=True)
        ]
        least = torch.finfo(torch.float32).tiny  # a marginal of 0 has a finite log so
        logits = torch.cat(marginals).clamp(min=least).log()
        return Prediction(logits, features=prediction.features)
