"""The flags that a checkpoint brings along, so that nobody has to type them again."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from engine.checkpoint import read
from engine.run import INCIDENTAL
from network import MODELS

OF_A_COMMAND = {  # never taken over from a checkpoint
    *("test_only", "predict", "make_uncertainty_masks", "make_pseudo_labels", "report"),
    *("make_cams", "make_pseudo_masks", "make_response_weights"),
    *(
        "check_data",
        "list",
        "ckpt",
        "init",
        "weight",
        "continue_training",
        "overwrite",
        "output_dir",
        "traceback",
        "gpu_id",
    ),
    *(
        "fit_calibrator",
        "fit_score",
        "score_statistics",
        "calibrator",
        "external",
        "logits_dir",
        "eval_on",
        *("robustness_source", "miou_subsets", "ignore_unshared"),
    ),
}
# actions that write maps of the training images
MAKING = ("make_uncertainty_masks", "make_pseudo_labels", "make_cams", "make_response_weights")
FIXED_BY_CHECKPOINT = (
    *("model", "backbone", "separable_conv", "member", "num_models"),
    *("head", "temperature", "temperature_floor"),
    *("aux_head", "head_norm", "use_se", "cam_consistency"),
)
NETWORK_FLAGS = (
    *(*FIXED_BY_CHECKPOINT, "output_stride", "dropout", "droprate", "head_init"),
    *("fuse_heads", "fuse_weight_aux", "upsample"),
)
DATA_FLAGS = (
    *("data_root", "year", "condition", "val_split", "crop_size"),
    *("eval_size", "eval_centre", "infer_size", "infer_fit", "infer_short_side"),
    *("sliding_window", "window_overlap"),
)
OF_TARGET = {  # whose images get pseudo labels
    "dataset": "target_dataset",
    "data_root": "target_root",
    "train_split": "target_split",
    "condition": "target_condition",
}
NO_SPLIT = "none"  # of --val_split: train without validation
SIZES = {"eval_size", "crop_val", "eval_centre"}  # one of them is typed in place of the others
PUBLISHED_NAME = re.compile(r"(?:best|latest)_(?P<model>.+)_(?P<dataset>[^_]+)_os(?P<stride>8|16)")


def stored_flags(path: Path) -> dict[str, Any]:
    """The flags a checkpoint was trained with; for published files what its name tells."""
    content = read(path)
    if "opts" in content:
        return dict(content["opts"])
    match = PUBLISHED_NAME.search(path.name)
    if match is None or match["model"] not in MODELS:
        return {}
    separable = any(".body." in key for key in content["model_state"])
    return {
        "model": match["model"],
        "dataset": match["dataset"],
        "output_stride": int(match["stride"]),
        "separable_conv": separable,
    }


def typed_values(opts: Namespace) -> dict[str, Any]:
    """The flags that were typed, with their values."""
    return {name: value for name, value in vars(opts).items() if name in opts.typed}


def wanted_flags(opts: Namespace) -> set[str] | None:
    """The names that an action takes from a checkpoint; None for all of a run that goes on."""
    joined = opts.model == "deep_ensemble"
    makes = any(getattr(opts, name) for name in MAKING)
    if opts.test_only or opts.predict or makes or opts.fit_calibrator or opts.fit_score:
        wanted = {"dataset", *DATA_FLAGS} | (set() if joined else {"method", *NETWORK_FLAGS})
        if opts.fit_calibrator == "local":
            wanted -= {"method"}
        if makes or opts.fit_score:
            wanted |= {"train_split", "train_transform", "image_tags"}
        return wanted
    return None if opts.continue_training else set()


def restored_flags(opts: Namespace) -> dict[str, Any]:
    """The flags that ``--ckpt`` brings along, as defaults.

    To go on training, all that say what the run computes; to use the network, its own and, unless
    another data set was typed, the data's. Of a deep ensemble it is the first member's data; for
    pseudo labels the target domain's.

    Raises:
        ValueError: if a typed flag contradicts one that cannot be changed.
    """
    path = (opts.weight or [None])[0] if opts.model == "deep_ensemble" else opts.ckpt
    wanted = wanted_flags(opts)
    if path is None or not path.is_file() or wanted == set():
        return {}
    stored = stored_flags(path)
    if opts.make_pseudo_labels and stored.get("target_dataset"):
        stored |= {name: stored[target] for name, target in OF_TARGET.items()}
    restored = {
        name: value
        for name, value in stored.items()
        if (name not in OF_A_COMMAND if wanted is None else name in wanted)
    }
    refuse_contradictions(opts, restored, path, everything=wanted is None)
    if wanted and restored.get("val_split") == NO_SPLIT:
        del restored["val_split"]
    if opts.typed & {"dataset"} and opts.dataset != stored.get("dataset"):
        restored = {name: v for name, v in restored.items() if name not in DATA_FLAGS}
    if wanted and opts.typed & SIZES:
        restored = {name: v for name, v in restored.items() if name not in SIZES}
    return restored


def refuse_contradictions(
    opts: Namespace, restored: dict[str, Any], path: Path, *, everything: bool
) -> None:
    """Refuse typed flags that a checkpoint decides otherwise.

    Args:
        opts: the flags.
        restored: those of the checkpoint.
        path: of the checkpoint.
        everything: whether all of them are fixed, or those of the network alone.

    Raises:
        ValueError: naming the flag and both values.
    """
    for name, value in typed_values(opts).items():
        fixed = name in restored and (everything or name in FIXED_BY_CHECKPOINT)
        if fixed and name not in INCIDENTAL and value != restored[name]:
            raise ValueError(
                f"--{name} {value} contradicts {path}, which was trained with"
                f" --{name} {restored[name]}: leave the flag out"
            )
