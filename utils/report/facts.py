"""What people call a result by, read from the flags of its training and its test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

PUBLISHED_NAME = re.compile(
    r"(?P<model>.+)_(?P<dataset>[^_]+)_os(?P<output_stride>8|16)"
    r"(?:_seed(?P<seed>\d+))?(?:_(?P<loss_type>.+))?"
)
KIND = re.compile(r"^(best|latest)_")
OF_FILES = re.compile(r"(?P<files>.+?)(?:_seed(?P<seed>\d+))?")  # a folder of --logits_dir
MOST_NAMES = 3  # of scenes, in the name of a test set
IMPLIED = {  # what older files, which lack them, were made with
    **{"ece_bins": 15, "pavpu_patch": 4, "flag_threshold": 0.05},
    **{"head": "linear", "temperature": "none", "temperature_floor": 1e-3},
    **{"wt_bound": 1.0, "border_window": 1, "boundary_weight": 2.0, "loss_reduction": "mean"},
    **{"rlx_off_epoch": -1, "rescale": 1.0, "repoly": 1.5},
    **{"class_uniform_tile": 1024, "blur": "none", "scale_filter": "bilinear"},
    **{"fuse_heads": "logits", "fuse_weight_aux": 0.5, "upsample": "logits"},
    **{"head_norm": "bn", "droprate": 0.1, "head_init": "published"},
    **{"score_norm": "none", "odin_epsilon": 0.002},
    **{"lr_floor": 1e-6, "underfit": "off", "underfit_beta": 0.5, "underfit_k": 0.5},
    **{"weight_threshold": 0.05, "weighting": "threshold", "label_source": "cyclic"},
    **{"react_percentile": 90.0, "dice_percentile": 90.0},
}
# A network's, which a test is told, too.
OF_HEAD = ("head", "temperature", "temperature_floor", "aux_head")
TARGET_LOSSES = (  # their weights
    *("lambda_adv_target1", "lambda_adv_target2", "lambda_kl_target", "lambda_me_target"),
)
SOURCE_ONLY = "source only"
ANOTHER_DOMAIN = "labels of another domain"
OWN_LOSSES = ("cam",)  # methods that read no --loss_type
LOSS_SAYS_ALL = ("supervised", "ensemble")  # methods that need no name beside the loss


@dataclass(frozen=True)
class Facts:
    """What people call a row by, and what decides which rows belong together.

    Attributes:
        model: with the models of its members.
        part: the member's name, empty for the whole.
        method: the loss, after the method where that says more, and a class head that is not
            the usual one.
        trained_on: data set, split unless it is train, condition.
        tested_on: data set, split, condition.
        kind: ``best`` or ``latest`` checkpoint, or empty.
    """

    model: str
    part: str
    method: str
    trained_on: str
    tested_on: str
    kind: str


class Test(NamedTuple):
    """A test set, or a data set or condition of one.

    Attributes:
        text: data set, split, condition.
        dataset: of the images, ``a+b`` for several together.
        images: None if that is not recorded.
        fingerprint: of the part if it is recorded, else of the whole.
    """

    text: str
    dataset: str
    images: int | None
    fingerprint: str


def describe_test(tested: Mapping[str, Any], dataset: str, condition: str) -> Test:
    """A test set by what its result file says of it.

    Args:
        tested: ``dataset`` of the file; ``parts`` in it, if there are any, are what
            ``--eval_on`` named, or the same of each part.
        dataset: one of several, empty for all of them.
        condition: one of several, empty for all of them.
    """
    parts = map(_part, tested.get("parts") or ())
    mine = [part for part in parts if part["name"] == dataset]
    source: Mapping[str, Any] = tested
    if dataset:
        source = mine[0] if len(mine) == 1 else {"name": dataset}
    splits = joined((part["split"] for part in mine if part.get("split")), "+")
    return Test(
        words(
            source["name"],
            splits or source.get("split") or _split_of(tested, dataset),
            _together(source.get("scenes")),
            condition or _together(source.get("condition")),
            _together(source.get("corruption")),
        ),
        source["name"],
        None if condition else source.get("images"),
        source.get("fingerprint", tested["fingerprint"]),
    )


def _part(part: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """A part of a test set; one typed as ``DATASET,key=value...`` by its keys."""
    if not isinstance(part, str):
        return part
    name, *settings = part.split(",")
    found = dict(setting.partition("=")[::2] for setting in settings)
    return {"name": name, "scenes": found.pop("scene", None), **found}


def _together(value: str | Sequence[str] | None) -> str | None:
    """One name or several as one word; many only by their number."""
    if not value:
        return None
    if isinstance(value, str):
        return value
    return "+".join(value) if len(value) <= MOST_NAMES else f"{len(value)} of them"


def _split_of(tested: Mapping[str, Any], dataset: str) -> str:
    """The split of one of several data sets; all of them where they do not tell which."""
    names, splits = tested["name"].split("+"), (tested["split"] or "").split("+")
    if len(names) == len(splits) and dataset in names:
        return str(splits[names.index(dataset)])
    return "+".join(splits)


def significant(flags: Mapping[str, Any], ignored: frozenset[str] | set[str]) -> dict[str, Any]:
    """The flags that matter and are set; an older file lacks flags that came later."""
    return {
        name: value
        for name, value in flags.items()
        if name not in ignored and value not in (None, False, []) and IMPLIED.get(name) != value
    }


def training_flags(checkpoint: Mapping[str, Any], opts: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of the training; of a checkpoint that has none what its name and the test tell.

    Of predictions that were read from files it is what their folder is called, and its seed.
    """
    if checkpoint.get("opts"):
        return dict(checkpoint["opts"])
    if opts.get("logits_dir"):
        return _told_by(OF_FILES.fullmatch(Path(opts["logits_dir"]).name))
    told = {name: opts[name] for name in OF_HEAD if name in opts}
    stem = KIND.sub("", Path(checkpoint["path"]).stem)
    match = PUBLISHED_NAME.fullmatch(stem)
    if match is None:
        return {"model": opts.get("model"), "name": stem, **told}
    return _told_by(match) | told


def _told_by(match: re.Match[str] | None) -> dict[str, Any]:
    """The flags in a name."""
    groups = match.groupdict() if match else {}
    found: dict[str, Any] = {name: value for name, value in groups.items() if value}
    seed = found.pop("seed", None)
    return {**found, "random_seed": int(seed)} if seed else found


def model_of(opts: Mapping[str, Any], trained: list[dict[str, Any]]) -> str:
    """The model's name, followed by those of its members; ``files`` where there was no network."""
    if opts.get("logits_dir"):
        return "files"
    name = str(opts.get("model") or trained[0].get("model") or "unknown model")
    members = [flags.get("model") for flags in trained] if len(trained) > 1 else []
    if name == "ensemble":
        flags = trained[0]
        members = flags.get("member") or [flags.get("backbone")] * (flags.get("num_models") or 1)
    elif opts.get("backbone"):
        members = [opts["backbone"]]
    counts = Counter(shorten(str(member)) for member in members)
    texts = [f"{count} x {model}" if count > 1 else model for model, count in counts.items()]
    return f"{name} of {' + '.join(texts)}" if texts else name


def shorten(model: str) -> str:
    """A model's name without what most of them start with."""
    return model.removeprefix("deeplabv3plus_")


def adaptation_of(flags: Mapping[str, Any]) -> str:
    """A training that adapts to another domain, with the labels it reads; empty for others.

    One whose losses on the images of the target domain all weigh 0 is of the source only.
    """
    method = flags.get("method")
    if method == "rectified":
        return f"{flags.get('pseudo_loss', 'rectified')} pseudo labels"
    if method != "mrnet":
        return ""
    source = labelled_data(flags)
    if not any(flags.get(name) for name in TARGET_LOSSES):
        return f"{SOURCE_ONLY}, {source}"
    target = words(flags.get("target_dataset"), flags.get("target_condition"))
    return f"mrnet, {source} to {target}"


def method_of(flags: Mapping[str, Any]) -> str:
    """The loss, after the method where the loss alone does not describe the training.

    A class head other than the linear one without a temperature follows, then the supervision.
    Of files it is what their folder is called.
    """
    if special := flags.get("files") or adaptation_of(flags):
        return str(special)
    method, loss = flags.get("method"), flags.get("loss_type")
    own = method if method not in (None, *LOSS_SAYS_ALL) else None
    loss = None if method in OWN_LOSSES else loss
    head, temperature = (flags.get(name, IMPLIED[name]) for name in ("head", "temperature"))
    return ", ".join(
        [
            words(own, loss) or "loss not recorded",
            *([head] if head != IMPLIED["head"] else []),
            *([f"{temperature} temperature"] if temperature != IMPLIED["temperature"] else []),
            *supervision_of(flags),
        ]
    )


def supervision_of(flags: Mapping[str, Any]) -> list[str]:
    """Labels, weights and pretended under-fitting, where they are not those of every training."""
    weighted = flags.get("weight_dir") is not None
    told = []
    if weighted and flags.get("label_source") == "cyclic":
        told.append("cyclic masks")
    elif flags.get("pseudo_dir") is not None:
        told.append("pseudo labels")
    elif flags.get("label_damage") is not None:
        told.append("damaged labels")
    underfit = flags.get("underfit", IMPLIED["underfit"])
    if underfit != IMPLIED["underfit"]:
        told.append(f"{underfit} at {flags['underfit_k']:g}")
    if weighted and flags.get("weighting") == "linear":
        told.append("linear weights")
    elif weighted and flags["weight_threshold"] < 1:
        told.append(f"weights {flags['weight_threshold']:g} and 1")
    return told


def trained_on(flags: Mapping[str, Any]) -> str:
    """The training's data set, its split unless that is train, its condition.

    Trainings that adapt are one group for each test set, whichever domain's images they read: the
    method says that.
    """
    return ANOTHER_DOMAIN if adaptation_of(flags) else labelled_data(flags)


def labelled_data(flags: Mapping[str, Any]) -> str:
    """The data set of ``--dataset``, its split unless that is train, its condition."""
    split = flags.get("train_split")
    return (
        words(flags.get("dataset"), None if split == "train" else split, flags.get("condition"))
        or "unknown data"
    )


# How a calibrator is fitted where nobody says otherwise; such settings need no words.
USUAL_FIT: Mapping[str, Any] = MappingProxyType(
    {
        "samples_per_image": 20_000,
        **{"fit_objective": "ece", "min_t": 0.5, "max_t": 10.0, "t_step": 0.01},
        **{"n_clusters": 8, "clustering_method": "kmeans", "cluster_assignment": "hard"},
        **{"lts_reads": "both", "lts_init_t": 2.0, "lts_init": "zero", "lts_floor": "original"},
        **{"lts_epochs": 10, "lts_images": 500, "lts_validation_share": 0.2},
    }
)


def calibrated_by(calibrator: Mapping[str, Any]) -> str:
    """The kind of a calibrator and, in brackets, what it was fitted on and how; not its file.

    How is said of the settings of the fit that are not the usual ones. Seeds are left out, and so
    is how images were predicted, which a test is told as well.
    """
    fitted = calibrator.get("fitted_on")
    if isinstance(fitted, Mapping):
        fitted = words(fitted.get("dataset"), fitted.get("split"))
    elif isinstance(fitted, list):
        fitted = " + ".join(map(str, fitted))
    settings = calibrator.get("flags") or {}
    unusual = [
        name if value is True else f"{name} {value}"
        for name, value in settings.items()
        if (name in USUAL_FIT and value != USUAL_FIT[name])
        or (name == "per_class_temperature" and value)
    ]
    told = "; ".join(filter(None, (fitted, *unusual)))
    return words(calibrator["kind"], f"({told})" if told else None)


def kind_of(checkpoint: Mapping[str, Any]) -> str:
    """Whether a checkpoint is the best or the latest of its run, by its name."""
    match = KIND.match(Path(checkpoint["path"]).name)
    return match[1] if match else ""


def joined(names: Iterable[str], sign: str = " + ") -> str:
    """Different names once each."""
    return sign.join(dict.fromkeys(names))


def words(*texts: str | None) -> str:
    """The texts that are not empty, with a space between them."""
    return " ".join(filter(None, texts))
