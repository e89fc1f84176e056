"""Flags of which network is built."""

from __future__ import annotations

from argparse import _ArgumentGroup
from pathlib import Path

from network import ENSEMBLES, MODELS
from network.heads import CLASS_HEADS, TEMPERATURES
from network.pyramid_head import NORMS
from utils.arguments import Repeated, choice, within


def add_model_flags(group: _ArgumentGroup) -> None:
    """Which network."""
    add = group.add_argument
    add("--model", type=choice("model", (*MODELS, *ENSEMBLES)), default="deeplabv3plus_mobilenet")
    add("--backbone", metavar="NAME", help="timm model of deeplabv3plus_timm, or see --num_models")
    add("--weight", type=Path, action=Repeated, metavar="FILE", help="a member of deep_ensemble")
    add("--external", metavar="MODULE:CALLABLE", help="a torch module from elsewhere")
    add(
        "--logits_dir",
        type=Path,
        metavar="DIR",
        help="in a network's place: arrays ID.npy (C, h, w), files of --save_probs, or label maps"
        " ID.png",
    )
    add("--output_stride", type=int, choices=(8, 16), default=16)
    add("--separable_conv", action="store_true", help="depthwise-separable head")
    add("--head", choices=tuple(CLASS_HEADS), default="linear", help="cosine: AbeT's classes")
    add("--temperature", choices=tuple(TEMPERATURES), default="none", help="learned: AbeT's")
    add("--temperature_floor", type=within(0, 1), default=1e-3, help="added; published: 1e-12")
    add("--fast_cosine", action="store_true", help="train on cosines before upsampling, not exact")
    add("--aux_head", action="store_true", help="a second head on the stage before the last")
    add("--head_norm", choices=tuple(NORMS), default="bn", help="of pyramid heads, see --aux_head")
    add("--use_se", action="store_true", help="squeeze and excitation in pyramid heads")
    add("--droprate", "--drop", type=within(0, 0.99), default=0.1, help="channels, in those heads")
    add(
        "--head_init",
        choices=("published", "full"),
        default="published",
        help="full: Kaiming also for the branches of pyramid heads",
    )
    add("--dropout", type=within(0, 0.99), default=0.0, help="after each stage of the backbone")
    add(
        "--pretrained_backbone",
        metavar="imagenet|none|PATH",
        default="imagenet",
        help="torchvision's weights, random weights, or a file with torchvision's keys",
    )
    add("--bn_momentum", type=within(0, 1), default=0.01, help="of the backbone's batch norms")
    add("--norm_eval", action="store_true", help="the backbone's batch norms keep their statistics")
    add("--sync_bn", action="store_true", help="batch norm over all processes")
    add("--reset_head", action="store_true", help="take all of --ckpt but the last layer")
