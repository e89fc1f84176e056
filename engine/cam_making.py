"""Class activation maps of the training split: how they are made, and what their files hold."""

from __future__ import annotations

import math
from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.base import SegDataset
from datasets.cam_files import CAM_ENDING, encode_cams
from datasets.cams import CAMS
from datasets.multi_crop import CROP, MULTI_CROP_SCALES, crop_boxes, usual_stride
from datasets.tags import ImageTags
from engine.cam_inference import (
    MULTI_SCALES,
    CamPredictor,
    MultiCrop,
    MultiScale,
    RefinedMaps,
    foreground_ids,
)
from engine.image_tags import give_tags
from engine.map_making import (
    MapWriter,
    describe_maps,
    images_of_maps,
    make_maps,
    refuse_not_finite,
)
from engine.trained import Trained
from methods import Method
from network.cam import CamNetwork
from uncertainty.dense_crf import HEAT_MAP_CRF, CrfSettings
from uncertainty.pseudo_masks import HEAT_MAP_POWER
from utils.arguments import at_least
from utils.types import Batch, Prediction

CAM_FLAGS = ("model", "method", "backbone", "output_stride", "condition", "eval_amp")
OF_OTHER_PASSES = (
    *("eval_flip", "eval_scales", "fuse", "upsample", "sliding_window", "infer_size", "infer_fit"),
    *("infer_short_side", "window_overlap", "fuse_heads", "fuse_weight_aux"),
    *("mc_samples", "calibrator"),
)
OF_BOXES = ("cam_crop", "cam_stride")
OF_CAM_MAKING = ("cam_inference", "cam_scales", *OF_BOXES, "cam_crf_iterations")


def add_cam_flags(group: _ArgumentGroup) -> None:
    """How class activation maps are made of a trained classifier, and where they are."""
    add = group.add_argument
    add("--cam_dir", type=Path, metavar="DIR", help="class activation maps: made there, or read")
    add(
        "--cam_inference",
        choices=("multi_scale", "multi_crop"),
        default="multi_scale",
        help="mirrored images at several scales, or mirrored boxes of them: slow, small objects",
    )
    add(
        "--cam_scales",
        type=float,
        nargs="+",
        metavar="S",
        help="default: 0.5 1 1.5 2 of multi_scale, 0.75 1 1.25 ... 3 of multi_crop",
    )
    add("--cam_crop", type=at_least(1), default=CROP, help="of multi_crop: what the network sees")
    add(
        "--cam_stride",
        type=at_least(1),
        help="of multi_crop: distance of boxes; default: 300/448 of --cam_crop, as published, which"
        " makes most of them narrower than it; equal to it: squares",
    )
    add(
        "--cam_crf_iterations",
        type=at_least(0),
        default=0,
        help="of a dense CRF; 10: heat maps, which --train_transform multi_crop reads",
    )


def check_cam_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the making of class activation maps, each one sentence that names the fix."""
    if not opts.make_cams:
        for name in OF_CAM_MAKING:
            if name in opts.typed:
                yield f"--{name} is of the making: add --make_cams"
        return
    if opts.ckpt is None:
        yield "--make_cams needs a trained classifier: add --ckpt FILE of a cam_ model"
    if not opts.image_tags:
        yield "--make_cams keeps the maps of the classes in each image: add --image_tags SOURCE"
    for name in OF_OTHER_PASSES:
        if name in opts.typed:
            yield f"--make_cams has passes of its own, see --cam_inference: leave --{name} out"
    if opts.eval_crf:
        yield "--make_cams refines maps with --cam_crf_iterations 10: leave --eval_crf out"
    yield from check_cam_scales(opts)


def check_cam_scales(opts: Namespace) -> Iterable[str]:
    """Problems with scales and boxes."""
    for scale in opts.cam_scales or ():
        if not (math.isfinite(scale) and scale > 0):
            yield f"--cam_scales {scale:g}: a scale is a finite number above 0"
            return
    if opts.cam_inference == "multi_crop":
        yield from check_boxes(opts)
        return
    for name in OF_BOXES:
        if name in opts.typed:
            yield f"--{name} is of --cam_inference multi_crop, which is not chosen"


def check_boxes(opts: Namespace) -> Iterable[str]:
    """Problems with the boxes of multi_crop."""
    try:
        for scale in scales_of(opts):
            crop_boxes((opts.cam_crop, opts.cam_crop), scale, *boxes_of(opts))
    except ValueError as error:
        yield f"--cam_crop, --cam_stride and --cam_scales do not go together: {error}"


def scales_of(opts: Namespace) -> tuple[float, ...]:
    """``--cam_scales``, or the published ones of the kind of inference."""
    usual = MULTI_CROP_SCALES if opts.cam_inference == "multi_crop" else MULTI_SCALES
    return tuple(opts.cam_scales or usual)


def boxes_of(opts: Namespace) -> tuple[int, int]:
    """Side and distance of the boxes, in scaled pixels."""
    return opts.cam_crop, opts.cam_stride or usual_stride(opts.cam_crop)


def crf_of(opts: Namespace) -> CrfSettings | None:
    """The CRF of heat maps; None where none is asked for."""
    iterations = opts.cam_crf_iterations
    return HEAT_MAP_CRF._replace(iterations=iterations) if iterations else None


def cam_directory(opts: Namespace) -> Path:
    """Where class activation maps are: ``--cam_dir``, or beside the images they belong to."""
    if opts.cam_dir is not None:
        return Path(opts.cam_dir)
    return Path(opts.data_root or opts.output_dir) / "cams"


class CamWriter(MapWriter):
    """Writes the maps of the labelled classes of every image (see ``datasets.cam_files``).

    Args:
        directory: made where it is missing.
        wanted: ids of the images whose maps are written; the others are passed over.
        background: train id of the class that has no map.
    """

    def __init__(self, directory: Path | str, wanted: Set[str], *, background: int | None) -> None:
        super().__init__(directory, wanted)
        self.background = background

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """The maps of a ``CamPredictor``, float16, and the image labels.

        Raises:
            ValueError: if a map is not finite, naming the image.
        """
        maps = prediction.logits
        finite = maps.isfinite().flatten(1).all(1).cpu().numpy()
        refuse_not_finite(batch["id"], finite, "class activation map")
        return {
            "maps": maps.clamp(0, 1).half().cpu().numpy(),
            "image_labels": batch["image_labels"].cpu().numpy(),
        }

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """One file."""
        labels = torch.from_numpy(arrays["image_labels"])[None]
        classes = np.array(foreground_ids(labels, self.background)[0], np.int64)
        yield CAM_ENDING, encode_cams(classes, arrays["maps"][: len(classes)])


def run_cam_making(opts: Namespace) -> int:
    """Write the class activation maps of every image of the training split that has none yet.

    The same command writes the same bytes, also after a kill. Maps made on another device or with
    another ``--val_batch_size`` differ in their last bits, as convolutions add in another order.

    Raises:
        ValueError: if there are no image labels or the network gives no such maps, has other
            classes, or as ``make_maps`` does.
    """
    dataset = images_of_maps(opts)
    give_tags(opts, dataset)
    directory = cam_directory(opts)

    def describe(trained: Trained) -> dict[str, Any]:
        """The manifest."""
        return describe_cams(opts, dataset, trained)

    def make_writer(manifest: dict[str, Any], wanted: Set[str]) -> CamWriter:
        """The writer of the maps that are missing."""
        return CamWriter(directory, wanted, background=manifest["background"])

    def make_source(method: Method) -> CamPredictor:
        """The maps of a batch."""
        return cam_predictor(opts, method, dataset.background)

    # Boxes are batched instead: images of which all but one are there would be seen for nothing.
    one = {"val_batch_size": 1} if opts.cam_inference == "multi_crop" else {}
    return make_maps(
        Namespace(**{**vars(opts), **one}),
        CAMS,
        dataset,
        directory,
        describe=describe,
        make_writer=make_writer,
        make_source=make_source,
    )


def cam_predictor(opts: Namespace, method: Method, background: int | None) -> CamPredictor:
    """How the flags make maps with a method on its device."""
    network = method.deployable()
    assert isinstance(network, CamNetwork), "describe_cams refuses others"
    inference = (
        MultiCrop(scales_of(opts), *boxes_of(opts), opts.val_batch_size)
        if opts.cam_inference == "multi_crop"
        else MultiScale(scales_of(opts))
    )
    return CamPredictor(RefinedMaps(network, opts.eval_amp), inference, background, crf_of(opts))


def describe_cams(opts: Namespace, dataset: SegDataset, trained: Trained) -> dict[str, Any]:
    """The manifest of maps that are about to be made.

    Args:
        opts: the flags.
        dataset: what they are made of, with its image labels.
        trained: the network.

    Raises:
        ValueError: if the network gives no activation maps or has other classes than the data.
    """
    if not isinstance(trained.method.deployable(), CamNetwork):
        raise ValueError(
            f"{opts.ckpt} holds no classifier with activation maps: train one with --method cam"
        )
    if trained.class_names != dataset.class_names:
        raise ValueError(
            f"{opts.ckpt} has {len(trained.class_names)} classes"
            f" ({', '.join(trained.class_names[:3])}, ...), {dataset.name} has"
            f" {dataset.num_classes} ({', '.join(dataset.class_names[:3])}, ...): the image labels"
            " and the maps have to be of the same classes"
        )
    assert isinstance(dataset.tags, ImageTags)
    return describe_maps(
        CAMS,
        opts,
        dataset,
        trained,
        flags=CAM_FLAGS,
        inference=describe_inference(opts),
        background=dataset.background,
        tags=dataset.tags.fingerprint(),
        classes=[{"name": one.name, "colour": one.colour} for one in dataset.classes],
        unit="1 at the strongest response of a class in the image",
    )


def describe_inference(opts: Namespace) -> dict[str, Any]:
    """What the maps follow from beside the network: scales, boxes and CRF."""
    inference: dict[str, Any] = {"kind": opts.cam_inference, "scales": list(scales_of(opts))}
    if opts.cam_inference == "multi_crop":
        inference["crop"], inference["stride"] = boxes_of(opts)
    crf = crf_of(opts)
    if crf is not None:
        inference["crf"] = {**crf._asdict(), "background_power": HEAT_MAP_POWER}
    return inference
