"""Response weights of the training split: which flags they follow from, and their making."""

from __future__ import annotations

import math
from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from datasets.base import SegDataset
from datasets.response_weights import weights_kind
from datasets.tags import ImageTags
from datasets.weight_files import UNCERTAINTY_LEVELS
from engine.image_tags import give_tags
from engine.map_making import describe_maps, images_of_maps, make_maps
from engine.pseudo_labels import share_of_classes
from engine.response_writer import ResponseWriter, count_levels
from engine.trained import Trained
from losses import LOSSES
from uncertainty.response_decoders import DECODERS
from uncertainty.response_scaling import ResponseScaling
from uncertainty.response_variance import PRESETS
from utils.arguments import at_least, within
from utils.weight_levels import LEVELS

OF_MAKING = (
    *("response_preset", "response_scales", "response_decoder", "response_reduce"),
    *("response_normalize", "restrict_to_tags", "save_uncertainty"),
)
OF_TRAINING = ("weight_threshold", "weighting", "label_source")


def add_response_flags(group: _ArgumentGroup) -> None:
    """How response weights are made, and what training makes of them."""
    add = group.add_argument
    add("--weight_dir", type=Path, metavar="DIR", help="response weights: made there, or read")
    add("--response_preset", choices=PRESETS, default="voc", help="published scales")
    add(
        "--response_scales",
        type=float,
        nargs="+",
        metavar="N",
        help="instead: powers of a class's probability, below 1 wide, above 1 narrow",
    )
    add(
        "--response_decoder",
        choices=DECODERS,
        default="crf",
        help="from probabilities to classes; affinity: by means over neighbours of like colour;"
        " argmax: in closed form, fast",
    )
    add("--response_reduce", choices=("max", "mean"), default="max", help="over the classes")
    add(
        "--response_normalize",
        choices=("image", "absolute"),
        default="image",
        help="image: the most uncertain pixel of each image has weight 0; absolute: U times 4",
    )
    add("--restrict_to_tags", action="store_true", help="only the classes of the image's tags")
    add("--save_uncertainty", action="store_true", help="also ID_uncertainty.png, 16 bits")
    add("--crf_workers", type=at_least(1), default=4, help="threads that decode")
    add(
        "--weight_threshold",
        type=within(0, 1),
        default=0.05,
        help="of training, unless linear: lower weights become this one, all others 1",
    )
    add(
        "--weighting",
        choices=("threshold", "linear"),
        default="threshold",
        help="linear: weights as they are stored",
    )
    add(
        "--label_source",
        choices=("cyclic", "original"),
        default="cyclic",
        help="original: labels of --pseudo_dir or the data set, weights alone of --weight_dir; on"
        " small trials that did not help (-0.2 and -1.4 points of mIoU)",
    )


def check_response_flags(opts: Namespace) -> Iterable[str]:
    """Problems with response weights, each one sentence that names the fix."""
    if opts.make_response_weights:
        yield from check_making_flags(opts)
    else:
        for name in OF_MAKING:
            if name in opts.typed:
                yield f"--{name} is of the making: add --make_response_weights"
    if "crf_workers" in opts.typed and not (opts.make_response_weights or opts.make_pseudo_masks):
        yield "--crf_workers is of --make_response_weights and --make_pseudo_masks: leave it out"
    if opts.weight_dir is None or opts.make_response_weights:
        for name in OF_TRAINING:
            if name in opts.typed:
                yield f"--{name} is of training on response weights: add --weight_dir DIR"
    else:
        yield from check_weighted_training(opts)


def check_making_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the making of response weights."""
    if opts.weight_dir is None:
        yield "--make_response_weights needs a folder for them: add --weight_dir DIR"
    if opts.response_scales is not None:
        if "response_preset" in opts.typed:
            yield "--response_preset and --response_scales both give the scales; give one"
        for scale in opts.response_scales:
            if not (math.isfinite(scale) and scale > 0):
                yield f"--response_scales {scale:g}: a power is a finite number above 0"
    for name in {"pseudo_dir", "cam_dir", "label_damage", "eval_crf"} & opts.typed:
        yield (
            "--make_response_weights reads images and a network alone, and refines by its"
            f" --response_decoder: leave --{name} out"
        )
    if opts.restrict_to_tags and not opts.image_tags:
        yield "--restrict_to_tags needs the images' tags: add --image_tags SOURCE"
    if "image_tags" in opts.typed and not opts.restrict_to_tags:
        yield "--image_tags is read by --restrict_to_tags: add it, or leave --image_tags out"


def check_weighted_training(opts: Namespace) -> Iterable[str]:
    """Problems with training on response weights."""
    if LOSSES[opts.loss_type].reads != "weight":
        yield (
            f"--weight_dir weighs pixels, and --loss_type {opts.loss_type} does so by an"
            " uncertainty of its own: use cross_entropy"
        )
    if opts.label_source == "cyclic" and "pseudo_dir" in opts.typed:
        yield (
            "--weight_dir brings labels of its own, so --pseudo_dir is not read: leave it out, or"
            " add --label_source original"
        )
    if opts.coarse_boost_classes:
        yield "--coarse_boost_classes adds images that have no response weights: leave it out"


def response_scaling(opts: Namespace) -> ResponseScaling:
    """What the flags say of scales, decoder, reduction and normalisation."""
    return ResponseScaling(
        opts.response_scales or PRESETS[opts.response_preset],
        DECODERS[opts.response_decoder].decoder,
        opts.response_reduce,
        opts.response_normalize,
    )


def run_response_weight_making(opts: Namespace) -> int:
    """Write label and weight of every image of the training split that has none yet.

    The split's own label files are not read, unless the images' tags are taken from them.

    Raises:
        ValueError: if the network has other classes than the data set, and as ``make_maps`` does.
    """
    dataset = images_of_maps(opts)
    if opts.restrict_to_tags:
        give_tags(opts, dataset)
    directory = Path(opts.weight_dir)

    def describe(trained: Trained) -> dict[str, Any]:
        """The manifest."""
        return describe_weights(opts, dataset, trained)

    def make_writer(manifest: dict[str, Any], wanted: Set[str]) -> ResponseWriter:
        """The writer of the weights that are missing."""
        return ResponseWriter(
            directory,
            wanted,
            num_classes=manifest["num_classes"],
            scaling=response_scaling(opts),
            restrict=opts.restrict_to_tags,
            save_uncertainty=opts.save_uncertainty,
            workers=opts.crf_workers,
        )

    def summarise(manifest: dict[str, Any]) -> dict[str, Any]:
        """What the manifest says of all labels and weights."""
        names = [one["name"] for one in manifest["classes"]]
        shares = share_of_classes(directory, dataset, names)
        return {"pixels": shares["pixels"], "levels": count_levels(directory, dataset)}

    return make_maps(
        opts,
        weights_kind(uncertainty=opts.save_uncertainty),
        dataset,
        directory,
        describe=describe,
        make_writer=make_writer,
        summary=summarise,
    )


def describe_weights(opts: Namespace, dataset: SegDataset, trained: Trained) -> dict[str, Any]:
    """The manifest of weights that are about to be made.

    Args:
        opts: the flags.
        dataset: what they are made of.
        trained: the network.

    Raises:
        ValueError: if its classes are not those of the data set.
    """
    if trained.class_names != dataset.class_names:
        raise ValueError(
            f"{trained.sources[0].path} has {len(trained.class_names)} classes"
            f" ({', '.join(trained.class_names[:3])}, ...), {dataset.name} has"
            f" {dataset.num_classes} ({', '.join(dataset.class_names[:3])}, ...): response weights"
            " are made of images with the network's classes"
        )
    scaling = response_scaling(opts)
    decoder = opts.response_decoder
    settings = DECODERS[decoder].settings
    tags = None
    if opts.restrict_to_tags:
        assert isinstance(dataset.tags, ImageTags), "--restrict_to_tags needs --image_tags"
        tags = dataset.tags.fingerprint()
    return describe_maps(
        weights_kind(uncertainty=opts.save_uncertainty),
        opts,
        dataset,
        trained,
        scales=scaling.scales,
        decoder={"name": decoder, **({decoder: settings} if settings else {})},
        reduce=scaling.reduce,
        normalize=scaling.normalize,
        tags=tags,
        classes=[{"name": one.name, "colour": one.colour} for one in dataset.classes],
        unit=f"train ids; weights: level / {LEVELS}; uncertainty: level / {UNCERTAINTY_LEVELS}",
    )
