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
    *("test_only", "predict", "make_uncertainty_masks", "report", "check_data", "list"),
    *("ckpt", "weight", "continue_training", "overwrite", "output_dir", "traceback", "gpu_id"),
    *(
        "fit_calibrator",
        "fit_score",
        "score_statistics",
        "calibrator",
        "external",
        "logits_dir",
        "eval_on",
        "robustness_source",
    ),
}
FIXED_BY_CHECKPOINT = (
    *("model", "backbone", "separable_conv", "member", "num_models"),
    *("head", "temperature", "temperature_floor"),
)
NETWORK_FLAGS = (*FIXED_BY_CHECKPOINT, "output_stride", "dropout")
DATA_FLAGS = (
    *("data_root", "year", "condition", "val_split", "crop_size"),
    *("eval_size", "eval_centre", "infer_size", "infer_fit", "sliding_window", "window_overlap"),
)
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


def restored_flags(opts: Namespace) -> dict[str, Any]:
    """The flags that ``--ckpt`` brings along, as defaults.

    To go on training, all that say what the run computes; to use the network, its own and, unless
    another data set was typed, the data's. Of a deep ensemble it is the first member's data.

    Raises:
        ValueError: if a typed flag contradicts one that cannot be changed.
    """
    joined = opts.model == "deep_ensemble"
    fits = opts.fit_calibrator or opts.fit_score
    path = (opts.weight or [None])[0] if joined else opts.ckpt
    if path is None or not path.is_file():
        return {}
    if opts.test_only or opts.predict or opts.make_uncertainty_masks or fits:
        wanted = {"dataset", *DATA_FLAGS} | (set() if joined else {"method", *NETWORK_FLAGS})
        if opts.fit_calibrator == "local":
            wanted -= {"method"}
        if opts.make_uncertainty_masks or opts.fit_score:
            wanted |= {"train_split", "train_transform"}
    elif opts.continue_training:
        wanted = None
    else:
        return {}
    stored = stored_flags(path)
    restored = {
        name: value
        for name, value in stored.items()
        if (name in wanted if wanted else name not in OF_A_COMMAND)
    }
    for name, value in typed_values(opts).items():
        fixed = name in restored and (wanted is None or name in FIXED_BY_CHECKPOINT)
        if fixed and name not in INCIDENTAL and value != restored[name]:
            raise ValueError(
                f"--{name} {value} contradicts {path}, which was trained with"
                f" --{name} {restored[name]}: leave the flag out"
            )
    if opts.typed & {"dataset"} and opts.dataset != stored.get("dataset"):
        restored = {name: v for name, v in restored.items() if name not in DATA_FLAGS}
    return restored
