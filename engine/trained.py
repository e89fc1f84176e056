"""Trained networks: one checkpoint or several as an ensemble, with their classes."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from datasets.base import SegDataset
from datasets.taxonomy import (
    ROAD,
    VOC,
    ClassMapping,
    SegClass,
    class_mapping,
    names_of,
    palette_of,
)
from datasets.taxonomy_adaptation import ROBOTCAR
from datasets.taxonomy_coco import COCO
from datasets.taxonomy_mapillary import MAPILLARY
from engine import checkpoint
from engine.build import without_pretraining
from engine.external import External, external_network, state_hash
from engine.mismatch import fitting_flags, last_layer
from engine.restore import NETWORK_FLAGS, stored_flags
from engine.run import file_hash, joint_hash
from engine.stored_logits import LogitsDirectory
from methods import METHODS, Method
from methods.ensemble import Ensemble, unique_names


@dataclass(frozen=True)
class Source:
    """A checkpoint, or whatever else a network was read from."""

    path: Path | str
    step: int | None
    opts: dict[str, Any] | None  # the flags of its training; published files do not say


@dataclass(frozen=True)
class Trained:
    """A trained network with what its checkpoints know of it."""

    method: Method
    class_names: tuple[str, ...]  # in the order of the logits
    palette: Tensor  # (C, 3), uint8
    sources: tuple[Source, ...]


def checkpoints(opts: Namespace) -> list[Path]:
    """The files that the network is read from: ``--ckpt``, or every ``--weight``."""
    return list(opts.weight) if opts.model == "deep_ensemble" else [opts.ckpt]


def trained_method(opts: Namespace, classes: tuple[SegClass, ...] = ()) -> Trained:
    """The network that the flags name: of ``--ckpt``, of every ``--weight``, or from elsewhere.

    Args:
        opts: the flags.
        classes: of the data set, which a network from elsewhere is taken to have.

    Raises:
        ValueError: if a checkpoint does not fit the flags, its classes are unknown, or the
            members of an ensemble have different classes.
    """
    if opts.external or opts.logits_dir:
        method: Method = (
            External(opts, len(classes), external_network(opts.external), opts.external)
            if opts.external
            else LogitsDirectory(opts, len(classes), opts.logits_dir, names_of(classes))
        )
        source = Source(opts.external or opts.logits_dir, None, None)
        return Trained(method.eval(), names_of(classes), palette_of(classes), (source,))
    if opts.model == "deep_ensemble":
        return trained_ensemble(opts)
    return trained_network(opts, opts.ckpt)


def network_files(opts: Namespace, trained: Trained, dataset: SegDataset) -> list[dict[str, str]]:
    """``file`` and ``sha256`` of each checkpoint, or of the one network or folder from elsewhere.

    Raises:
        ValueError: if an image of the data set has no file of logits.
    """
    if opts.external or opts.logits_dir:
        return [
            {
                "file": Path(opts.external or opts.logits_dir).name,
                "sha256": network_hash(opts, trained, dataset),
            }
        ]
    return [{"file": path.name, "sha256": file_hash(path)} for path in checkpoints(opts)]


def network_hash(opts: Namespace, trained: Trained, dataset: SegDataset) -> str:
    """SHA-256 over what the predictions of a network follow from.

    Raises:
        ValueError: if an image of the data set has no file of logits.
    """
    if isinstance(trained.method, External):
        return state_hash(trained.method.network)
    if isinstance(trained.method, LogitsDirectory):
        return trained.method.content_hash([item.id for item in dataset.items])
    return joint_hash(checkpoints(opts))


def trained_network(opts: Namespace, path: Path) -> Trained:
    """The network of one checkpoint, built as the flags say.

    Raises:
        ValueError: if it does not fit the flags, or its classes are unknown.
    """
    content = checkpoint.read(path)
    state = content["model_state"]
    try:
        num_classes = len(state[last_layer(state)[0]])
    except (IndexError, KeyError):
        raise ValueError(f"{path} holds no segmentation network: no convolution") from None
    method = METHODS[training_method(opts, path)](without_pretraining(opts), num_classes)
    checkpoint.load_network(method.deployable(), state, path)
    if "classes" in content:
        named = zip(content["classes"], content["colours"], strict=True)
        classes = tuple(SegClass(name, tuple(colour)) for name, colour in named)
    else:
        classes = published_classes(path, num_classes)
    source = Source(path, content.get("cur_itrs"), content.get("opts"))
    return Trained(method.eval(), names_of(classes), palette_of(classes), (source,))


def training_method(opts: Namespace, path: Path) -> str:
    """The method that a checkpoint was trained with, which builds its network.

    Raises:
        ValueError: if it holds the head of a calibrator and no network.
    """
    usual = opts.method if METHODS[opts.method].trains_network else "supervised"
    method = str(stored_flags(path).get("method", usual))
    if method == "local_temperature":
        raise ValueError(
            f"{path} holds the head of a local temperature, not a network: give the network as"
            " --ckpt and the file that --fit_calibrator local wrote as --calibrator"
        )
    return method


def trained_ensemble(opts: Namespace) -> Trained:
    """The deep ensemble of every ``--weight``, each member as its checkpoint describes it.

    Raises:
        ValueError: as ``trained_network`` does, and if two members have different classes.
    """
    flags = [flags_of_member(opts, path) for path in opts.weight]
    members = [trained_network(each, path) for each, path in zip(flags, opts.weight, strict=True)]
    first = members[0]
    for path, member in zip(opts.weight, members, strict=True):
        if member.class_names != first.class_names:
            raise ValueError(
                f"members of an ensemble need the same classes: {opts.weight[0]} has"
                f" {len(first.class_names)} ({', '.join(first.class_names[:3])}, ...), {path} has"
                f" {len(member.class_names)} ({', '.join(member.class_names[:3])}, ...)"
            )
    names = unique_names([each.model for each in flags])
    networks = dict(zip(names, (member.method.deployable() for member in members), strict=True))
    method = Ensemble(opts, len(first.class_names), networks)
    sources = tuple(source for member in members for source in member.sources)
    return Trained(method.eval(), first.class_names, first.palette, sources)


def flags_of_member(opts: Namespace, path: Path) -> Namespace:
    """The flags of a member's network: its checkpoint's, its file name's, or those that fit.

    Flags that change no weight, such as ``--output_stride``, may be typed for all members.

    Raises:
        ValueError: if nothing tells the architecture.
    """
    stored = stored_flags(path)
    known = {name: stored[name] for name in (*NETWORK_FLAGS, "method") if name in stored}
    if "model" not in known:
        fit = fitting_flags(checkpoint.read(path)["model_state"])
        if fit is None:
            raise ValueError(
                f"nothing tells the architecture of {path}: it holds no flags, its name is not"
                " best_MODEL_DATASET_osN_seedN.pth, and its tensors fit no model of this project"
            )
        known = fit
    typed = {name: getattr(opts, name) for name in opts.typed & {"output_stride", "dropout"}}
    base = {"method": "supervised", "backbone": None}
    return Namespace(**{**vars(opts), **base, **known, **typed})


def published_classes(path: Path, num_classes: int) -> tuple[SegClass, ...]:
    """The classes of a file that does not name them, from their number.

    Raises:
        ValueError: if no known set has that many.
    """
    for classes in (ROAD, VOC, MAPILLARY, ROBOTCAR, COCO):
        if len(classes) == num_classes:
            return classes
    raise ValueError(
        f"{path} has {num_classes} classes and does not name them; files without names are"
        " taken for Cityscapes (19), VOC (21), Mapillary Vistas (65), RobotCar (9) or COCO-14 (91)"
    )


def refuse_other_classes(trained: Trained, dataset: SegDataset) -> None:
    """Refuse a data set whose classes are not those of the network, in their order.

    Raises:
        ValueError: naming the first classes of both.
    """
    if trained.class_names != dataset.class_names:
        raise ValueError(
            f"a calibrator is fitted on the classes of its network: it has"
            f" {len(trained.class_names)} ({', '.join(trained.class_names[:4])}, ...),"
            f" {dataset.name} has {dataset.num_classes} ({', '.join(dataset.class_names[:4])}, ...)"
        )


def mapping_between(names: tuple[str, ...], dataset: SegDataset) -> ClassMapping | None:
    """How the network's classes and the data set's meet; None where they are the same.

    Images without class labels meet any network.

    Args:
        names: the network's classes.
        dataset: the images.

    Raises:
        ValueError: if no mapping is known.
    """
    if names == dataset.class_names or not dataset.classes:
        return None
    mapping = class_mapping(names, dataset.class_names)
    if mapping is None:
        raise ValueError(
            f"the network's {len(names)} classes ({', '.join(names[:4])}, ...) and the"
            f" {dataset.num_classes} of {dataset.name} ({', '.join(dataset.class_names[:4])}, ...)"
            " have no known mapping; test on a data set with its classes, or fine-tune with --ckpt"
            " and --reset_head"
        )
    return mapping
