"""What training sees: the split, its random transforms, and which images make an epoch."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from torch import Tensor

from datasets.base import SegDataset
from datasets.cams import CamReader
from datasets.class_uniform import ClassUniform, find_centroids
from datasets.damage import DamagedLabels
from datasets.epochs import EpochOrder, Permutations, epoch_steps
from datasets.items import Item, by
from datasets.joined import Joined
from datasets.pseudo_labels import PseudoLabels
from datasets.response_weights import ResponseWeights
from datasets.taxonomy import SegClass
from datasets.transforms import Transform
from datasets.uncertainty_masks import UncertaintyMasks
from engine.augmentation import random_transform
from engine.build import data_set
from engine.cam_making import cam_directory
from engine.image_tags import give_tags
from engine.map_making import images_of_maps
from engine.map_settings import note_settings
from engine.pseudo_labels import label_directory
from methods import METHODS
from utils.arguments import at_least, ids, within
from utils.log import logger

COARSE_SPLIT = "train_extra"
OF_CLASS_UNIFORM = ("class_uniform_tile", "coarse_boost_classes", "max_cu_epoch")
OF_PIXEL_LABELS = (
    *("pseudo_dir", "weight_dir", "label_damage", "coarse_boost_classes", "loss_normalize"),
)


def add_sampling_flags(group: _ArgumentGroup) -> None:
    """Which images an epoch shows, and which labels they have."""
    add = group.add_argument
    add(
        "--image_tags",
        metavar="SOURCE",
        help="which classes an image shows: masks (from the label files), xml (VOC's annotations),"
        " or a .csv or .json file of id and class names",
    )
    add(
        "--label_damage",
        type=within(0, 1),
        metavar="SHARE",
        help="train on damaged labels: this share of the objects too wide, the others too narrow",
    )
    add("--class_uniform_pct", type=within(0, 1), default=0.0, help="share of an epoch by class")
    add("--class_uniform_tile", type=at_least(1), default=1024, help="side, in label pixels")
    add("--coarse_boost_classes", type=ids, metavar="ID,ID", help="also from coarse labels")
    add("--max_cu_epoch", type=at_least(1), help="from this epoch on without coarse labels")


def check_sampling_flags(opts: Namespace) -> Iterable[str]:
    """Problems with which images training sees, each one sentence that names the fix."""
    if opts.class_uniform_pct == 0:
        for name in OF_CLASS_UNIFORM:
            if name in opts.typed:
                yield f"--{name} concerns class-uniform sampling: add --class_uniform_pct 0.5"
    elif opts.train_transform != "scale_crop":
        yield (
            "--class_uniform_pct cuts crops round each class's centroids: add --train_transform"
            " scale_crop"
        )
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
    yield from check_label_flags(opts)


def check_label_flags(opts: Namespace) -> Iterable[str]:
    """Problems with where labels come from."""
    method = METHODS[opts.method]
    if method.reads_image_labels(opts):
        if not opts.image_tags:
            yield (
                f"--method {opts.method} learns which classes an image shows: add --image_tags"
                " masks, xml, or a .csv or .json file"
            )
        for name in OF_PIXEL_LABELS:
            if name in opts.typed:
                yield f"--{name} is of pixel labels, which --method {opts.method} does not read"
    elif "image_tags" in opts.typed:
        yield f"--image_tags is of image labels, which --method {opts.method} does not read"
    own = opts.pseudo_dir is None and (opts.weight_dir is None or opts.label_source == "original")
    if opts.label_damage is not None and not own:
        yield "--label_damage changes the labels of the data set, and others are read: leave it out"
    if opts.weight_dir is not None and not method.reads_weights:
        yield f"--weight_dir weighs pixels, which --method {opts.method} does not: leave it out"


def training_data(opts: Namespace) -> SegDataset:
    """The split to train on, with its random transforms and, where they are read, its maps.

    Labels are those of the split, pseudo labels, or those of response weights. With
    ``--coarse_boost_classes`` the coarsely labelled images come after it.

    Raises:
        ValueError: as ``data_set`` does, and if a map is missing, stale or of another size.
    """
    transform = random_transform(opts)
    weights = response_weights(opts) if opts.weight_dir is not None else None
    if METHODS[opts.method].reads_image_labels(opts):
        dataset = image_labelled(opts, transform)
    elif weights is not None and weights.reads_labels:
        dataset = labelled_by(opts, transform, weights.label, weights.classes)
    elif opts.pseudo_dir is not None or METHODS[opts.method].reads_pseudo_labels(opts):
        dataset = pseudo_labelled(opts, transform)
    else:
        dataset = own_labels(opts, transform)
    if weights is not None:
        refuse_redrawn(dataset, weights)
        dataset.weight = weights
    if opts.coarse_boost_classes:
        return Joined([dataset, data_set(opts, COARSE_SPLIT, transform)])
    return dataset


def own_labels(opts: Namespace, transform: Transform) -> SegDataset:
    """The training split with the labels of its files, and uncertainty masks where they are read.

    Raises:
        ValueError: as ``data_set`` does, and if a mask is missing, stale or of another size.
    """
    dataset = data_set(opts, opts.train_split, transform, damage=damage_of(opts))
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
    return dataset


def damage_of(opts: Namespace) -> DamagedLabels | None:
    """What ``--label_damage`` does to labels; None without it."""
    if opts.label_damage is None:
        return None
    return DamagedLabels(opts.label_damage, seed=opts.random_seed)


def image_labelled(opts: Namespace, transform: Transform) -> SegDataset:
    """The images of the training split with the classes that each shows; pixels have no labels.

    Raises:
        ValueError: if an image has no tags, tags make no sense, or a tag has no heat map.
    """
    dataset = data_set(opts, opts.train_split, transform, labelled=False)
    give_tags(opts, dataset)
    if opts.train_transform == "multi_crop":
        CamReader(cam_directory(opts)).check_tags(dataset)
    return dataset


def pseudo_labelled(opts: Namespace, transform: Transform) -> SegDataset:
    """The images of the training split with pseudo labels, in the classes of those.

    Raises:
        ValueError: if pseudo labels are missing, damaged, or not those of these images.
    """
    labels = PseudoLabels(label_directory(opts), opts.pseudo_threshold)
    dataset = labelled_by(opts, transform, labels, labels.classes)
    labels.check(dataset)
    note_settings(opts, labels)
    if labels.manifest is not None:
        made = ", ".join(one["file"] for one in labels.manifest.get("checkpoints", ()))
        logger.info(
            "labels in %s%s, %.1f %% of the pixels have none",
            labels.directory,
            f" of {made}" if made else "",
            100 * labels.manifest.get("rejected", 0),
        )
    return dataset


def labelled_by(
    opts: Namespace,
    transform: Transform,
    source: Callable[[Item], Tensor],
    classes: tuple[SegClass, ...] | None,
) -> SegDataset:
    """The images of the training split with labels from elsewhere.

    The split's own label files are neither listed nor read.

    Args:
        opts: the flags.
        transform: of the samples.
        source: of the labels.
        classes: of the labels; None for those of the data set.
    """
    return data_set(
        opts,
        opts.train_split,
        transform,
        labelled=False,
        label_source=source,
        classes=classes,
    )


def response_weights(opts: Namespace) -> ResponseWeights:
    """The response weights of the images of the training split.

    Raises:
        ValueError: if they are missing, damaged, or not those of these images.
    """
    images = images_of_maps(opts)
    weights = ResponseWeights(
        opts.weight_dir,
        threshold=opts.weight_threshold,
        weighting=opts.weighting,
        label_source=opts.label_source,
        classes=images.classes,
    )
    weights.check(images)
    note_settings(opts, weights)
    return weights


def refuse_redrawn(dataset: SegDataset, weights: ResponseWeights) -> None:
    """Refuse generated images that training draws at another size than that of their weights.

    Raises:
        ValueError: naming both sizes.
    """
    item = dataset.originals[0]
    if item.image is None and dataset.native_size(0) != weights.inspect(item):
        raise ValueError(
            f"the weights in {weights.directory} have {by(weights.inspect(item))} pixels, and the"
            f" scenes are drawn with {by(dataset.native_size(0))} for this --train_transform: take"
            " --train_transform resize for both"
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
