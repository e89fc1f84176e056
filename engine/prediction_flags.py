"""Flags of how images are predicted: sizes, passes, heads and what is written."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from pathlib import Path

from engine.scoring import score_names
from utils.arguments import Flat, at_least, size, within

HEAD_FUSIONS = ("logits", "probs", "main", "aux")

OF_SEEN_SIZE = ("infer_size", "infer_fit", "infer_short_side")  # one of them


def add_prediction_flags(group: _ArgumentGroup) -> None:
    """How to evaluate and predict."""
    add = group.add_argument
    add("--crop_val", action="store_true", help="same as --eval_size crop")
    add("--eval_size", choices=("crop", "native"), help="images and labels at this size")
    add("--eval_centre", type=size, help="images to this height, the middle cut or padded")
    add("--infer_size", type=size, help="what the network sees; scores stay at the label's size")
    add("--infer_fit", type=size, help="the same, but keep the aspect: the largest that fits in")
    add(
        "--infer_short_side",
        type=at_least(2),
        metavar="N",
        help="the same: its short side is N, its long one at most 4 N; times each of --eval_scales",
    )
    add("--val_batch_size", type=at_least(1), default=4)
    add("--sliding_window", type=size, metavar="SIZE", help="predict window by window")
    add(
        "--window_overlap",
        type=within(0, 0.9),
        default=1 / 3,
        help="share of a window; 0.0625 of 512 is a stride of 480",
    )
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
    add("--eval_crf", action="store_true", help="refine probabilities by a dense CRF, as URN does")
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
    add("--save_probs", action="store_true", help="with --predict: float16, for --logits_dir, too")


def check_prediction_flags(opts: Namespace) -> Iterable[str]:
    """Problems with what the network sees, each one sentence that names the fix."""
    given = [name for name in OF_SEEN_SIZE if getattr(opts, name)]
    if len(given) > 1:
        yield f"--{given[0]} and --{given[1]} both say what the network sees; give one"
    least = min(opts.eval_scales)
    if opts.infer_short_side and opts.infer_short_side * least < 1:
        yield (
            f"--infer_short_side {opts.infer_short_side} times --eval_scales {least:g} is less than"
            " one pixel: give a longer side"
        )
