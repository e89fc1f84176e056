"""Segmentation networks: backbones, heads and every model by name."""

from network import modeling
from network.deeplab import convert_to_separable_conv
from network.modeling import MODELS, build_model, describe

__all__ = ["MODELS", "build_model", "convert_to_separable_conv", "describe", "modeling"]
