"""What training sees: the split, its random transforms, and which images make an epoch."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from datasets.base import SegDataset
from datasets.class_uniform import ClassUniform, find_centroids
from datasets.epochs import EpochOrder, Permutations, epoch_steps
from datasets.joined import Joined
from datasets.pseudo_labels import PseudoLabels
from datasets.resize_crop import refuse_small
from datasets.transforms import Blur, Transform, train_transform
from datasets.uncertainty_masks import UncertaintyMasks
from engine.build import data_set
from engine.pseudo_labels import label_directory
from methods import METHODS
from utils.arguments import at_least, choice, ids, size, within
from utils.log import logger

COARSE_SPLIT = "train_extra"
OF_RESIZE_CROP = ("input_size", "crop_classes", "autoaug")
OF_CLASS_UNIFORM = ("class_uniform_tile", "coarse_boost_classes", "max_cu_epoch")


def add_sampling_flags(group: _ArgumentGroup) -> None:
    """How training images are drawn, cut and changed."""
    add = group.add_argument
    add(
        "--train_transform",
        type=choice("transform", ("resize", "scale_crop", "resize_crop")),
        default="resize",
        help="resize: to crop_size, aspect not kept; scale_crop: random scale, padded random crop;"
        " resize_crop: to input_size times a random scale, random crop",
    )
    add("--scale_range", type=within(0.1, 10), nargs=2, default=(0.5, 2.0), help="of both crops")
    add("--input_size", type=size, help="of resize_crop: N or HxW; default: the image's own")
    add("--crop_classes", type=at_least(0), default=0, help="of resize_crop: show more, 10 tries")
    add("--autoaug", action="store_true", help="of resize_crop: AutoAugment's colours")
    add("--scale_filter", choices=("bilinear", "bicubic"), default="bilinear", help="of scale_crop")
    add("--flip", type=within(0, 1), default=0.0, help="probability of a mirrored sample")
    add("--color_jitter", type=within(0, 1), default=0.0, help="0.5: brightness, contrast, ...")
    add("--hue_jitter", type=within(0, 0.5), default=0.0, help="greatest shift, of the full circle")
    add("--blur", choices=("none", "gaussian", "bilateral"), default="none", help="random strength")
    add("--class_uniform_pct", type=within(0, 1), default=0.0, help="share of an epoch by class")
    add("--class_uniform_tile", type=at_least(1), default=1024, help="side, in label pixels")
    add("--coarse_boost_classes", type=ids, metavar="ID,ID", help="also from coarse labels")
    add("--max_cu_epoch", type=at_least(1), help="from this epoch on without coarse labels")


def check_sampling_flags(opts: Namespace) -> Iterable[str]:
    """Problems with what training sees, each one sentence that names the fix."""
    if opts.class_uniform_pct == 0:
        for name in OF_CLASS_UNIFORM:
            if name in opts.typed:
                yield f"--{name} concerns class-uniform sampling: add --class_uniform_pct 0.5"
    elif opts.train_transform != "scale_crop":
        yield (
            "--class_uniform_pct cuts crops round each class's centroids: add --train_transform"
            " scale_crop"
        )
    if opts.scale_filter != "bilinear" and opts.train_transform != "scale_crop":
        yield "--scale_filter is of --train_transform scale_crop, which is not chosen"
    yield from check_resize_crop(opts)
    if opts.coarse_boost_classes and opts.dataset != "cityscapes":
        yield f"--coarse_boost_classes needs --dataset cityscapes; {opts.dataset} has none"
    if opts.max_cu_epoch and not opts.coarse_boost_classes:
        yield (
            "--max_cu_epoch says how long coarse labels are read: add --coarse_boost_classes, or"
            " leave it out"
        )
    if opts.epochs and "total_itrs" in opts.typed:
        yield "--epochs and --total_itrs both say how long to train; give one"
    if opts.coarse_boost_classes and METHODS[opts.method].reads_masks(opts):
        yield "--coarse_boost_classes adds images that have no uncertainty masks: leave it out"


def check_resize_crop(opts: Namespace) -> Iterable[str]:
    """Problems with ``--train_transform resize_crop`` and the flags that belong to it."""
    if opts.train_transform != "resize_crop":
        for name in OF_RESIZE_CROP:
            if name in opts.typed:
                yield f"--{name} is of --train_transform resize_crop, which is not chosen"
    elif opts.input_size is not None:
        least = opts.scale_range[0]
        try:
            refuse_small(opts.crop_size, opts.input_size, least, "the smallest resize")
        except ValueError as error:
            yield f"--crop_size, --input_size and --scale_range do not go together: {error}"


def training_data(opts: Namespace) -> SegDataset:
    """The split to train on, with its random transforms and, where they are read, its masks.

    With ``--coarse_boost_classes`` the coarsely labelled images come after it.

    Raises:
        ValueError: as ``data_set`` does, and if a mask is missing, stale or of another size.
    """
    transform = random_transform(opts)
    if METHODS[opts.method].reads_pseudo_labels(opts):
        return pseudo_labelled(opts, transform)
    dataset = data_set(opts, opts.train_split, transform)
    if opts.train_split.endswith(("_cv1", "_cv2")):
        logger.warning(
            "%s trains on cities of the official val split: its mIoU is not comparable with that"
            " of others",
            opts.train_split,
        )
    if METHODS[opts.method].reads_masks(opts):
        masks = UncertaintyMasks(mask_directory(opts))
        masks.check(dataset)
        dataset.weight = masks
    if opts.coarse_boost_classes:
        return Joined([dataset, data_set(opts, COARSE_SPLIT, transform)])
    return dataset


def pseudo_labelled(opts: Namespace, transform: Transform) -> SegDataset:
    """The images of the training split with pseudo labels, in the classes of those.

    The split's own label files are neither listed nor read.

    Raises:
        ValueError: if pseudo labels are missing, damaged, or not those of these images.
    """
    labels = PseudoLabels(label_directory(opts), opts.pseudo_threshold)
    dataset = data_set(
        opts,
        opts.train_split,
        transform,
        labelled=False,
        label_source=labels,
        classes=labels.classes,
    )
    labels.check(dataset)
    return dataset


def random_transform(opts: Namespace) -> Transform:
    """The transform that the flags describe."""
    blur: Blur = opts.blur
    return train_transform(
        opts.train_transform,
        opts.crop_size,
        flip=opts.flip,
        colour_jitter=opts.color_jitter,
        scale_range=tuple(opts.scale_range),
        scale_filter=opts.scale_filter,
        hue=opts.hue_jitter,
        blur=blur,
        input_size=opts.input_size,
        crop_classes=opts.crop_classes,
        autoaug=opts.autoaug,
    )


def mask_directory(opts: Namespace) -> Path:
    """Where uncertainty masks are: ``--mask_dir``, or beside the images they belong to."""
    if opts.mask_dir is not None:
        return Path(opts.mask_dir)
    return Path(opts.data_root or opts.output_dir) / "uncertainty_masks"


def epoch_order(opts: Namespace, dataset: SegDataset, cache_dir: Path) -> EpochOrder:
    """Which images each epoch shows; the same in every process.

    Args:
        opts: the flags.
        dataset: of ``training_data``.
        cache_dir: for what is measured on the labels.

    Raises:
        ValueError: if a label is bad or a class that is to be boosted does not exist.
    """
    if opts.class_uniform_pct == 0:
        return Permutations(len(dataset), opts.random_seed)
    parts = dataset.parts if isinstance(dataset, Joined) else (dataset,)
    find = partial(find_centroids, tile=opts.class_uniform_tile, cache_dir=cache_dir)
    fine, *coarse = map(find, parts)
    order = ClassUniform(
        len(parts[0]),
        fine,
        opts.class_uniform_pct,
        opts.random_seed,
        boost=coarse[0] if coarse else None,
        boost_classes=opts.coarse_boost_classes or (),
        max_epoch=opts.max_cu_epoch,
    )
    absent = [name for name, rows in zip(dataset.class_names, fine, strict=True) if not len(rows)]
    logger.info(
        "class-uniform sampling: %d images of each class in an epoch of %d%s",
        order.per_class,
        order.length(0),
        f"; none shows {', '.join(absent)}" if absent else "",
    )
    return order


def count_epochs(opts: Namespace, order: EpochOrder) -> None:
    """Fill in ``--epoch_itrs`` and, from ``--epochs``, ``--total_itrs``.

    An epoch is one pass over what the first epoch shows, its incomplete last step left out.
    """
    if opts.epoch_itrs is None:
        opts.epoch_itrs = max(1, epoch_steps(order.length(0), opts.batch_size))
    if opts.epochs is not None:
        opts.total_itrs = opts.epochs * opts.epoch_itrs
