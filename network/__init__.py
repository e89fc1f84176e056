"""Segmentation networks: backbones, heads and every model by name."""

from network import modeling
from network.deeplab import convert_to_separable_conv
from network.ensemble import DeepEnsemble, log_mean_softmax
from network.modeling import MODELS, build_model, describe

# Choices of ``--model`` that join several models.
ENSEMBLES = {
    "deep_ensemble": "trained networks, --weight FILE for each, that answer by their mean softmax",
    "ensemble": "networks trained side by side, --member MODEL for each (--method ensemble)",
}

__all__ = [
    "ENSEMBLES",
    "MODELS",
    "DeepEnsemble",
    "build_model",
    "convert_to_separable_conv",
    "describe",
    "log_mean_softmax",
    "modeling",
]
