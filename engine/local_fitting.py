"""``--fit_calibrator local``: the method ``local_temperature`` trained on one named split."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from datasets.base import Item, SampleKey, SegDataset
from datasets.samples import Sample
from engine import build, checkpoint
from engine.evaluate import PredictionSource
from engine.run import FinishedRun, Run, network_name, tested_name, training_alone
from engine.trained import Trained, network_hash
from engine.training import RunData, train_method, validation
from methods.local_temperature import LocalTemperatureScaling
from uncertainty.calibrators import Calibrator
from utils.log import logger
from utils.types import Batch, Prediction

IMAGES_BETWEEN_VALIDATIONS = 40  # as published
EPOCHS_WITHOUT_IMPROVEMENT = 3


class Subset(SegDataset):
    """Some images of a data set, in an order of their own.

    Args:
        whole: the data set.
        indices: of its images.
    """

    layout = "  that of the whole"

    def __init__(self, whole: SegDataset, indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = tuple(indices)
        self.name = whole.name
        self.classes = whole.classes
        self.train_ids = whole.train_ids
        super().__init__(whole.root, whole.split, transform=whole.transform, seed=whole.seed)
        self.items = [whole.items[index] for index in self.indices]

    def check_split(self, known: object) -> None:
        """The whole has checked it."""

    def files(self) -> list[Item]:
        """The whole's items."""
        return [self.whole.originals[index] for index in self.indices]

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and train ids (H, W) uint8 of one item, at native size."""
        return self.whole.read(self.indices[index])

    def read_raw_label(self, index: int) -> Tensor:
        """The ids (H, W) uint8 as the whole's label file holds them."""
        return self.whole.read_raw_label(self.indices[index])

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of an item after the transform's resize, without decoding it."""
        return self.whole.size(self.indices[index])

    def prepare(self) -> None:
        """Build or open the whole's cache."""
        self.whole.prepare()

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The whole's sample."""
        key = SampleKey.of(key)
        return self.whole[key._replace(index=self.indices[key.index])]


class KeptLogits(PredictionSource):
    """Predictions from the logits that a method keeps.

    Args:
        of_batch: from a batch on its device to the prediction.
    """

    def __init__(self, of_batch: Callable[[Batch], Prediction]) -> None:
        self._of_batch = of_batch

    def of_batch(self, batch: Batch) -> Prediction:
        """The prediction of a batch, at the size of its images."""
        return self._of_batch(batch)


class Split(NamedTuple):
    """The images of a fit."""

    train: Subset
    validation: Subset


def split_images(dataset: SegDataset, *, images: int, share: float, seed: int) -> Split:
    """Draw images by seed; the first share of them validates, the rest trains.

    Args:
        dataset: what to draw from, without repetition.
        images: at most that many.
        share: of the drawn images that validate, rounded to whole images, at least one.
        seed: of the draw.

    Raises:
        ValueError: if no image would be left to train on.
    """
    order = np.random.default_rng(seed).permutation(len(dataset))[:images].tolist()
    held_out = max(1, round(share * len(order)))
    if held_out >= len(order):
        raise ValueError(
            f"{len(order)} images of {dataset.name} and --lts_validation_share {share:g} leave none"
            " to train on: fit on more images or give a smaller share"
        )
    return Split(Subset(dataset, order[held_out:]), Subset(dataset, order[:held_out]))


def fit_local(
    opts: Namespace, dataset: SegDataset, trained: Trained
) -> tuple[Calibrator, dict[str, Any]]:
    """Train the head of a local temperature for a frozen network, or go on training it.

    Args:
        opts: the flags, ``--ckpt`` being that of the network.
        dataset: labelled images without random transforms, of the network's classes.
        trained: the network; its parameters are frozen, nothing else of it changes.

    Returns:
        The calibrator with the best head, and what to say of the fit: mean NLL of the images held
        out, in nats, of the network (``nll_before``), with the best head (``nll_after``) and with
        the last one (``nll_final``); numbers of images; the step of the best head and the last.

    Raises:
        ValueError: if there are too few images, or the run's files belong to another run.
        SystemExit: with the status of a run that a signal stopped.
    """
    parts = split_images(
        dataset,
        images=opts.lts_images,
        share=opts.lts_validation_share,
        seed=opts.random_seed,
    )
    segment = build.build_predictor(opts, trained.method, samples=opts.mc_samples)
    assert not isinstance(segment, PredictionSource), "the flags refuse logits in files"
    sha256 = network_hash(opts, trained, dataset)
    flags = run_flags(opts, len(parts.train), sha256)
    method = LocalTemperatureScaling(flags, len(trained.class_names), trained.method, segment)
    run = Run(local_run_name(opts, dataset, sha256), opts.output_dir)
    try:
        with training_alone(run):
            status = train_method(
                flags,
                run,
                RunData(parts.train, parts.validation),
                lambda _: method,
                lambda _: KeptLogits(method.calibrated),
                steps_per_epoch(len(parts.train), flags.batch_size),
            )
    except FinishedRun as finished:
        logger.info("%s", finished)
        build.place(method, flags, build.choose_device(flags))
        status = 0
    if status:
        raise SystemExit(status)
    return best_calibrator(flags, run, method, parts)


def run_flags(opts: Namespace, images: int, sha256: str) -> Namespace:
    """The flags of the run that trains the head.

    Args:
        opts: the flags of the fit.
        images: number of training images.
        sha256: of the network, so that no run goes on with another one.
    """
    between = min(IMAGES_BETWEEN_VALIDATIONS, images)
    published = {
        "total_itrs": opts.lts_epochs * steps_per_epoch(images, opts.batch_size),
        "val_interval": max(1, between // opts.batch_size),
        # the published limit is to be exceeded, ours to be reached
        "patience": EPOCHS_WITHOUT_IMPROVEMENT * images // between + 1,
    }
    changes = {name: value for name, value in published.items() if name not in opts.typed}
    # --ckpt is that of the network, from which this run does not go on
    return Namespace(**{**vars(opts), **changes, "ckpt": None, "network_sha256": sha256})


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Optimizer steps of an epoch; an incomplete last one is left out, at least one remains."""
    return max(1, images // batch_size)


def local_run_name(opts: Namespace, dataset: SegDataset, sha256: str) -> str:
    """The name of the run's files: after ``--run_name``, or the network, the images, the seed."""
    if opts.run_name:
        return f"{opts.run_name}_local_temperature"
    network, images = network_name(opts, sha256), tested_name(opts, dataset)
    return f"{network}_local_temperature_on_{images}_seed{opts.random_seed}"


def best_calibrator(
    opts: Namespace, run: Run, method: LocalTemperatureScaling, parts: Split
) -> tuple[Calibrator, dict[str, Any]]:
    """The calibrator of a finished run, and what to say of the fit (see ``fit_local``)."""
    before = validation(opts, method, parts.validation, KeptLogits(method.uncalibrated))
    after = validation(opts, method, parts.validation, KeptLogits(method.calibrated))
    found: dict[str, Any] = {"nll_before": before()["total"]["nll"]}
    steps = {}
    for name, kind in (("nll_final", "latest"), ("nll_after", "best")):  # the best one stays
        path = run.checkpoint(kind)
        content = checkpoint.read(path)
        checkpoint.load_network(method.head, content["model_state"], path)
        found[name] = after()["total"]["nll"]
        steps[kind] = content["cur_itrs"]
    warn_of_no_gain(found["nll_before"], found["nll_after"])
    return method.calibrator, {
        **found,
        "images_trained_on": len(parts.train),
        "images_held_out": len(parts.validation),
        "best_step": steps["best"],
        "steps": steps["latest"],
        "run": run.name,
    }


def warn_of_no_gain(before: float | None, after: float | None) -> None:
    """Say so where the network alone has the lower NLL; None stands for no labelled image."""
    if before is not None and after is not None and after >= before:
        logger.warning(
            "calibrated, the images held out have an NLL of %.4f; the network alone has %.4f: try"
            " more --lts_epochs or --lts_images, or the start --lts_init_t 1",
            after,
            before,
        )
