"""How training images are cut and changed: the flags and the transform they describe."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from typing import get_args

from datasets.cams import CamReader
from datasets.cuts import Kind
from datasets.multi_crop import MULTI_CROP_SCALES
from datasets.resize_crop import refuse_small
from datasets.transforms import Blur, Transform, train_transform
from engine.cam_making import cam_directory
from engine.map_making import images_of_maps
from methods import METHODS
from utils.arguments import at_least, choice, size, within

# The flags of some kinds of --train_transform alone.
OF_KINDS = {
    ("scale_crop",): ("scale_filter",),
    ("resize_crop",): ("input_size", "crop_classes", "autoaug"),
    ("fit_crop",): ("base_size",),
    ("scale_crop", "resize_crop", "fit_crop"): ("scale_range",),
    ("long_side_crop",): ("long_side",),
    ("multi_crop",): ("multi_crop_scales", "multi_crop_stride", "cam_dir"),
}


def add_augmentation_flags(group: _ArgumentGroup) -> None:
    """How training images are cut and changed."""
    add = group.add_argument
    add(
        "--train_transform",
        type=choice("transform", get_args(Kind)),
        default="resize",
        help="resize: to crop_size, aspect not kept; scale_crop: random scale, padded random crop;"
        " resize_crop: to input_size times a random scale, random crop; fit_crop: fitted into a"
        " box of random size, crop of several classes (URN); long_side_crop, multi_crop: of"
        " classifiers, whole images and boxes at many scales (PMM)",
    )
    add(
        "--scale_range",
        type=within(0.1, 10),
        nargs=2,
        default=(0.5, 2.0),
        help="of scale_crop, resize_crop and fit_crop",
    )
    add("--input_size", type=size, help="of resize_crop: N or HxW; default: the image's own")
    add("--crop_classes", type=at_least(0), default=0, help="of resize_crop: show more, 10 tries")
    add("--autoaug", action="store_true", help="of resize_crop: AutoAugment's colours")
    add("--scale_filter", choices=("bilinear", "bicubic"), default="bilinear", help="of scale_crop")
    add("--base_size", type=at_least(1), help="of fit_crop: short side at scale 1; default: crop's")
    add(
        "--long_side",
        type=at_least(1),
        nargs=2,
        default=(448, 768),
        help="of long_side_crop: least and greatest",
    )
    add(
        "--multi_crop_scales",
        type=within(0.1, 10),
        nargs="+",
        default=MULTI_CROP_SCALES,
        help="of multi_crop, which reads heat maps in --cam_dir",
    )
    add("--multi_crop_stride", type=at_least(1), help="of its boxes; default: 300/448 of the crop")
    add("--flip", type=within(0, 1), default=0.0, help="probability of a mirrored sample")
    add("--color_jitter", type=within(0, 1), default=0.0, help="0.5: brightness, contrast, ...")
    add("--hue_jitter", type=within(0, 0.5), default=0.0, help="greatest shift, of the full circle")
    add("--photometric_distortion", action="store_true", help="mmsegmentation's random colours")
    add("--blur", choices=("none", "gaussian", "bilateral"), default="none", help="random strength")


def check_augmentation_flags(opts: Namespace) -> Iterable[str]:
    """Problems with how training images are cut, each one sentence that names the fix."""
    for kinds, names in OF_KINDS.items():
        for name in names:
            if name in opts.typed and opts.train_transform not in kinds:
                yield f"--{name} is of --train_transform {' or '.join(kinds)}, which is not chosen"
    if opts.long_side[0] > opts.long_side[1]:
        yield f"--long_side goes from small to large: {opts.long_side[1]} {opts.long_side[0]}"
    if opts.train_transform == "multi_crop" and not METHODS[opts.method].reads_image_labels(opts):
        yield "--train_transform multi_crop has no pixel labels: it goes with --method cam"
    if opts.train_transform == "resize_crop" and opts.input_size is not None:
        least = opts.scale_range[0]
        try:
            refuse_small(opts.crop_size, opts.input_size, least, "the smallest resize")
        except ValueError as error:
            yield f"--crop_size, --input_size and --scale_range do not go together: {error}"


def random_transform(opts: Namespace) -> Transform:
    """The transform that the flags describe.

    Raises:
        ValueError: if it reads heat maps and these are missing, damaged or of other images.
    """
    blur: Blur = opts.blur
    boxes = {}
    if opts.train_transform == "multi_crop":
        images = images_of_maps(opts)
        heat_maps = CamReader(cam_directory(opts))
        heat_maps.check(images)
        boxes = {"heat_maps": heat_maps, "background": images.background}
    return train_transform(
        opts.train_transform,
        opts.crop_size,
        flip=opts.flip,
        colour_jitter=opts.color_jitter,
        hue=opts.hue_jitter,
        distortion=opts.photometric_distortion,
        blur=blur,
        scale_range=tuple(opts.scale_range),
        scale_filter=opts.scale_filter,
        input_size=opts.input_size,
        crop_classes=opts.crop_classes,
        autoaug=opts.autoaug,
        base_size=opts.base_size,
        long_side=tuple(opts.long_side),
        crop_scales=tuple(opts.multi_crop_scales),
        crop_stride=opts.multi_crop_stride,
        **boxes,
    )
