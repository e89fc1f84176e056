"""Calibrators of ``--calibrator``: read, checked against the network and the images."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.base import SegDataset
from engine.fuse_heads import has_two_heads
from engine.run import file_hash
from engine.trained import Trained
from uncertainty.calibrators import Calibrator, load_calibrator
from utils.log import logger

LOGITS = "logits"  # of one network
LOG_PROBABILITIES = "log probabilities"  # of a mean softmax


@dataclass(frozen=True)
class Loaded:
    """A calibrator from a file.

    Attributes:
        calibrator: for ``run_pass``.
        manifest: what it was fitted on and with.
        path: of the file.
        sha256: of the file.
    """

    calibrator: Calibrator
    manifest: dict[str, Any]
    path: Path
    sha256: str

    @property
    def label(self) -> str:
        """Its kind and what it was fitted on, for file names."""
        fitted = self.manifest["fitted_on"]
        return f"{self.calibrator.kind}-{fitted['dataset']}_{fitted['split']}"

    def describe(self) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "file": str(self.path),
            "kind": self.calibrator.kind,
            "sha256": self.sha256,
            "fitted_on": self.manifest["fitted_on"],
            "flags": self.manifest["flags"],
        }


def load(opts: Namespace) -> Loaded | None:
    """The calibrator of ``--calibrator``, None without that flag.

    Raises:
        ValueError: if the file is none.
    """
    if opts.calibrator is None:
        return None
    calibrator, manifest = load_calibrator(opts.calibrator)
    return Loaded(calibrator, manifest, opts.calibrator, file_hash(opts.calibrator))


def load_fitting(opts: Namespace, trained: Trained, sha256: str) -> Loaded | None:
    """The calibrator of ``--calibrator``, which fits the network.

    Raises:
        ValueError: as ``load`` and ``refuse_misfit`` do.
    """
    loaded = load(opts)
    if loaded is not None:
        refuse_misfit(loaded, opts, trained, sha256)
    return loaded


def refuse_misfit(loaded: Loaded, opts: Namespace, trained: Trained, sha256: str) -> None:
    """Check that a calibrator was fitted on logits like the network's.

    Args:
        loaded: the calibrator.
        opts: the flags.
        trained: the network.
        sha256: of the network's checkpoints.

    Raises:
        ValueError: if the classes or the kind of logits differ.
    """
    manifest, path = loaded.manifest, loaded.path
    classes, own = manifest["classes"], list(trained.class_names)
    if classes != own:
        raise ValueError(
            f"{path} was fitted on {len(classes)} classes ({', '.join(classes[:3])}, ...), the"
            f" network has {len(own)} ({', '.join(own[:3])}, ...): fit one with --fit_calibrator"
        )
    mine, theirs = kind_of_logits(opts, trained), manifest["logits"]
    if mine != theirs:
        raise ValueError(
            f"{path} was fitted on {theirs} and this network gives {mine} (of an ensemble, of"
            " dropout samples, of fused passes or upsampled): fit one with the flags of this test"
        )
    if manifest["network"] != sha256:
        logger.warning("%s was fitted on another network", path)


def kind_of_logits(opts: Namespace, trained: Trained) -> str:
    """Whether a prediction's logits are a network's own or the log of a mean softmax."""
    passes = len(opts.eval_scales) * (2 if opts.eval_flip else 1)
    joined = bool(trained.method.members()) or opts.model == "deep_ensemble"
    fused = passes > 1 and opts.fuse == "probs"
    fused |= opts.fuse_heads == "probs" and has_two_heads(opts)
    fused |= opts.upsample == "probs"
    return LOG_PROBABILITIES if joined or fused or opts.mc_samples else LOGITS


def refuse_overlap(loaded: Loaded, dataset: SegDataset) -> None:
    """Refuse to test a calibrator on images that it was fitted on.

    Raises:
        ValueError: with their number and the first of them.
    """
    common = sorted(dataset.origins() & set(loaded.manifest["origins"]))
    if common:
        raise ValueError(
            f"{loaded.path} was fitted on {len(common)} of the {len(dataset)} images of this test"
            f" ({common[0]}, ...): its scores there mean nothing; test on another --val_split"
        )
