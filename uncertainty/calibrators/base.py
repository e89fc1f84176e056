"""What a calibrator is: a change of the logits after training that is fitted on labelled pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from utils.types import Prediction


class Calibrator(ABC):
    """Turns a prediction at the size of the images into a calibrated one.

    Attributes:
        kind: the name after ``--fit_calibrator``.
        needs: fields of ``Prediction`` that must be present, such as ``features``.
        num_classes: classes C of the logits it was fitted on.
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    num_classes: int

    def __call__(self, prediction: Prediction, images: Tensor) -> Prediction:
        """Calibrate the logits and those of the members; the other fields stay as they are.

        Args:
            prediction: of the images, at their size.
            images: (N, 3, H, W), normalised as the network reads them.

        Raises:
            ValueError: if the network has another number of classes than the calibrator, or a
                field of ``needs`` is absent.
        """
        classes = prediction.logits.shape[1]
        if classes != self.num_classes:
            raise ValueError(
                f"the calibrator was fitted on {self.num_classes} classes, the network has "
                f"{classes}; fit one on predictions of this network"
            )
        for name in sorted(self.needs):
            if getattr(prediction, name) is None:
                raise ValueError(
                    f"the {self.kind} calibrator needs {name}, the prediction has none"
                )
        return self.calibrate(prediction, images)

    @abstractmethod
    def calibrate(self, prediction: Prediction, images: Tensor) -> Prediction:
        """Calibrate a prediction that fits; arguments as ``__call__``."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that ``from_state`` needs, as tensors, numbers, texts and lists of them."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The calibrator whose ``state`` this is."""


def divided(prediction: Prediction, temperature: Tensor) -> Prediction:
    """A prediction whose logits and members' logits are divided by a temperature.

    An ensemble's logits are log probabilities; divided they are normalised again, so that their
    logsumexp stays 0. Logits of half precision become float32.

    Args:
        prediction: with logits (N, C, H, W).
        temperature: above 0, a shape that broadcasts to (N, 1, H, W).
    """
    temperature = temperature.to(torch.promote_types(prediction.logits.dtype, torch.float32))
    members = prediction.member_logits
    return with_logits(
        prediction,
        prediction.logits / temperature,
        None if members is None else members / temperature,
    )


def with_logits(prediction: Prediction, logits: Tensor, members: Tensor | None) -> Prediction:
    """A prediction with other logits (N, C, H, W), normalised for an ensemble, and members'."""
    if members is not None:
        logits = logits.log_softmax(1)
    return prediction._replace(logits=logits, member_logits=members)
