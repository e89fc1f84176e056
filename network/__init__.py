"""Segmentation networks: backbones, heads and every model by name."""

from collections.abc import Mapping

from torch import Tensor

from network import cam, deeplab_multi, deepwv3plus, modeling, pspnet
from network.deeplab import convert_to_separable_conv
from network.discriminator import MultiScaleDiscriminator
from network.ensemble import DeepEnsemble, joint_aux_logits, log_mean_softmax
from network.modeling import (
    CAM_MODELS,
    MODEL_DEFAULTS,
    MODELS,
    PSPNET_MODELS,
    TWO_HEADED,
    Network,
    build_model,
    describe,
)
from network.pyramid_head import PyramidOptions

# Choices of ``--model`` that join several models.
ENSEMBLES = {
    "deep_ensemble": "trained networks, --weight FILE for each, that answer by their mean softmax",
    "ensemble": "networks trained side by side, --member MODEL for each (--method ensemble)",
}

__all__ = [
    "CAM_MODELS",
    "ENSEMBLES",
    "MODELS",
    "MODEL_DEFAULTS",
    "PSPNET_MODELS",
    "TWO_HEADED",
    "DeepEnsemble",
    "MultiScaleDiscriminator",
    "Network",
    "PyramidOptions",
    "build_model",
    "convert_to_separable_conv",
    "describe",
    "from_published",
    "joint_aux_logits",
    "log_mean_softmax",
    "modeling",
]


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published file under our names, a state of any other network as it is.

    Known are DeepWV3Plus, AbeT, MRNet, mmsegmentation's PSPNet, of which URN's are some, and the
    classifiers of SEAM and PMM; files of DeepLabV3Plus-Pytorch have our names already.
    """
    for family in (deepwv3plus, deeplab_multi, pspnet, cam):
        state = family.from_published(state)
    return dict(state)
