"""Pseudo-masks of the training split from class activation maps: no network has a part in it."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.base import SegDataset
from datasets.cams import CamReader
from datasets.label_files import LABEL_ENDING, encode_label
from datasets.map_folders import map_path
from datasets.parallel import threaded
from datasets.pseudo_labels import PSEUDO_MASKS
from engine import build
from engine.cam_making import cam_directory
from engine.map_claims import claim_folder
from engine.map_making import describe_files, images_of_maps, report_written
from engine.pseudo_labels import label_directory, share_of_classes
from uncertainty.dense_crf import PSEUDO_MASK_CRF, CrfSettings
from uncertainty.pseudo_masks import (
    BACKGROUND_POWER,
    CAM_THRESHOLD,
    CV_SCALE,
    proportional_mask,
)
from utils.arguments import at_least, within
from utils.distributed import barrier, rank, world_size
from utils.files import write_atomically
from utils.log import logger
from utils.types import IGNORE_INDEX

MASK_FLAGS = ("crf_iterations", "cam_threshold", "cv_scale", "background_power")
INFORMATIVE = ("commit", "command", "complete")  # entries of a manifest that no map follows from


def add_pseudo_mask_flags(group: _ArgumentGroup) -> None:
    """How class activation maps become pseudo-masks."""
    add = group.add_argument
    add(
        "--crf_iterations",
        type=at_least(0),
        default=PSEUDO_MASK_CRF.iterations,
        help="of the dense CRF that says which pixels a class claims; 0: no CRF",
    )
    add(
        "--cam_threshold",
        type=within(0, 1),
        default=CAM_THRESHOLD,
        help="lower values of a map are 0",
    )
    add("--cv_scale", type=within(0, 10), default=CV_SCALE, help="how much uneven maps are lifted")
    add(
        "--background_power",
        type=within(0.01, 1000),
        default=BACKGROUND_POWER,
        help="of 1 - map, the background of a class: the greater, the wider the class",
    )


def check_pseudo_mask_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the making of pseudo-masks, each one sentence that names the fix."""
    if opts.make_pseudo_masks:
        for name in ("ckpt", "weight", "calibrator", "eval_crf", "eval_flip", "eval_scales"):
            if name in opts.typed:
                yield f"--make_pseudo_masks reads maps, no network: leave --{name} out"
        for name in ("image_tags", "weight_dir", "label_damage"):
            if name in opts.typed:
                yield f"--make_pseudo_masks reads images and their maps alone: leave --{name} out"
        if "pseudo_threshold" in opts.typed:
            yield "--pseudo_threshold is of probabilities; pseudo-masks have none: leave it out"
        return
    for name in MASK_FLAGS:
        if name in opts.typed:
            yield f"--{name} is of the making: add --make_pseudo_masks"


@dataclass(frozen=True)
class MaskMaker:
    """Writes the pseudo-mask of an item; what it writes follows from its map and image alone.

    Attributes:
        cams: of the data set, checked.
        dataset: at the size of the maps.
        directory: where the masks go.
        crf: None for no CRF.
        device: that the CRF runs on.
        knobs: ``background_power``, ``cam_threshold`` and ``cv_scale`` of ``proportional_mask``.
    """

    cams: CamReader
    dataset: SegDataset
    directory: Path
    crf: CrfSettings | None
    device: torch.device
    knobs: dict[str, float]

    def __call__(self, index: int) -> None:
        """Write ``ID.png``.

        Raises:
            ValueError: if a map or an image is missing or damaged, naming the file.
        """
        item = self.dataset.items[index]
        classes, maps = self.cams(item)
        image = None if self.crf is None else self.dataset.read(index)[0].to(self.device)
        mask = proportional_mask(
            classes.to(self.device),
            maps.to(self.device),
            image,
            crf=self.crf,
            background=self.dataset.background,
            **self.knobs,
        )
        content = encode_label(mask.cpu().numpy(), self.dataset.num_classes)
        write_atomically(map_path(self.directory, item, LABEL_ENDING), content)


def run_pseudo_mask_making(opts: Namespace) -> int:
    """Write the pseudo-mask of every image of the training split that has none yet.

    Raises:
        ValueError: if maps are missing, damaged or of other images, or the folder holds masks of
            another origin.
    """
    build.be_deterministic(Namespace(deterministic=True))
    cams = CamReader(cam_directory(opts))
    dataset = images_of_maps(opts)
    cams.check(dataset)
    directory = label_directory(opts)
    manifest = describe_pseudo_masks(opts, dataset, cams)

    def summarise(manifest: dict[str, Any]) -> dict[str, Any]:
        """What the manifest says of all masks."""
        return share_of_classes(directory, dataset, [one["name"] for one in manifest["classes"]])

    missing = claim_folder(
        PSEUDO_MASKS,
        directory,
        manifest,
        dataset,
        overwrite=opts.overwrite,
        summary=summarise,
    )
    if not missing:
        logger.info("all %d %s are there, in %s", len(dataset), PSEUDO_MASKS.content, directory)
        return 0
    maker = MaskMaker(
        cams, dataset, directory, crf_of(opts), build.choose_device(opts), knobs_of(opts)
    )
    make_files(maker, sorted(missing)[rank() :: world_size()], opts.crf_workers)
    return report_written(PSEUDO_MASKS, directory, manifest, summarise, len(missing))


def make_files(maker: MaskMaker, indices: list[int], workers: int) -> None:
    """Write the masks of some items on threads; ends when every process has written its share.

    The kernels of a thread run on one core: how a sum is shared out among cores can change its
    last bit, and with it a mask.
    """

    def make(place: int) -> None:
        """The mask of one of the items."""
        maker(indices[place])

    def one_core() -> None:
        """Of every thread."""
        torch.set_num_threads(1)

    for _ in threaded(make, len(indices), "Masks", workers=workers, initializer=one_core):
        pass
    barrier()


def crf_of(opts: Namespace) -> CrfSettings | None:
    """The CRF that the flags ask for; None for none."""
    iterations = opts.crf_iterations
    return PSEUDO_MASK_CRF._replace(iterations=iterations) if iterations else None


def knobs_of(opts: Namespace) -> dict[str, float]:
    """Those of ``proportional_mask`` that are flags."""
    return {name: getattr(opts, name) for name in MASK_FLAGS if name != "crf_iterations"}


def describe_pseudo_masks(opts: Namespace, dataset: SegDataset, cams: CamReader) -> dict[str, Any]:
    """The manifest of masks that are about to be made.

    Args:
        opts: the flags.
        dataset: what they are made of.
        cams: what they are made from, checked.
    """
    crf = crf_of(opts)
    rest = "rejected" if dataset.background is None else "unused"
    return describe_files(
        PSEUDO_MASKS,
        opts,
        dataset,
        dataset.num_classes,
        flags=MASK_FLAGS,
        threshold=0.0,
        scores=False,
        cams=cams_hash(cams, dataset),
        background=dataset.background,
        crf=None if crf is None else crf._asdict(),
        classes=[{"name": one.name, "colour": one.colour} for one in dataset.classes],
        unit=f"train ids, {IGNORE_INDEX} {rest}",
    )


def cams_hash(cams: CamReader, dataset: SegDataset) -> str:
    """SHA-256 over what the maps follow from, or over all files where no manifest says so."""
    if cams.manifest is not None:
        origin = {name: cams.manifest[name] for name in cams.manifest if name not in INFORMATIVE}
        return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()

    def digest(index: int) -> bytes:
        """Of the file of an item."""
        return hashlib.sha256(cams.path(dataset.items[index]).read_bytes()).digest()

    return hashlib.sha256(b"".join(threaded(digest, len(dataset), "Hashing"))).hexdigest()
