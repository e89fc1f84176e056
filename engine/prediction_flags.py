"""Flags of how images are predicted: sizes, passes, heads and what is written."""

from __future__ import annotations

from argparse import _ArgumentGroup
from pathlib import Path

from engine.scoring import score_names
from utils.arguments import Flat, at_least, size, within

HEAD_FUSIONS = ("logits", "probs", "main", "aux")


def add_prediction_flags(group: _ArgumentGroup) -> None:
    """How to evaluate and predict."""
    add = group.add_argument
    add("--crop_val", action="store_true", help="same as --eval_size crop")
    add("--eval_size", choices=("crop", "native"), help="images and labels at this size")
    add("--eval_centre", type=size, help="images to this height, the middle cut or padded")
    add("--infer_size", type=size, help="what the network sees; scores stay at the label's size")
    add("--infer_fit", type=size, help="the same, but keep the aspect: the largest that fits in")
    add("--val_batch_size", type=at_least(1), default=4)
    add("--sliding_window", type=size, metavar="SIZE", help="predict window by window")
    add("--window_overlap", type=within(0, 0.9), default=1 / 3, help="share of a window")
    add("--eval_flip", action="store_true", help="also predict the mirrored image")
    add("--eval_scales", type=within(0.1, 10), nargs="+", default=[1.0])
    add(
        "--fuse",
        choices=("logits", "probs", "members"),
        default="probs",
        help="mean over the passes, or take them for members",
    )
    add(
        "--fuse_heads",
        choices=HEAD_FUSIONS,
        default="logits",
        help="of a network with an auxiliary head: what is predicted",
    )
    add("--fuse_weight_aux", type=within(0, 10), default=0.5, help="of the auxiliary head; main: 1")
    add(
        "--upsample",
        choices=("logits", "probs"),
        default="logits",
        help="probs: softmax at the heads' resolution, then to the label's size",
    )
    add("--mc_samples", type=at_least(1), help="dropout passes of a test; of uce's training: 10")
    add("--eval_amp", choices=("off", "bf16", "fp16"), default="off")
    add("--calibrator", type=Path, metavar="FILE", help="of --fit_calibrator, on every prediction")
    add("--save_val_results", action="store_true", help="image, target, prediction, overlay")
    add(
        "--scores",
        nargs="*",
        type=score_names,
        action=Flat,
        metavar="NAME",
        help="write maps of uncertainty, see --list scores; --predict: entropy instance",
    )
    add("--server_format", action="store_true", help="also label ids as a test server wants them")
    add("--save_probs", action="store_true", help="with --predict: class probabilities, float16")
