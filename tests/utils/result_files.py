"""Result files as ``--test_only`` writes them, with made-up scores."""

import json
from hashlib import sha256 as sha256_of

import numpy as np

from datasets.taxonomy import ROAD, names_of
from metrics.segmentation import SegmentationMetrics
from utils.statistics import iou_percent

ROAD_NAMES = names_of(ROAD)


def scores_of(iou, pixels):
    """What ``SegmentationMetrics`` reports, from IoU by class in percent."""
    known = [value for value in iou.values() if value is not None]
    mean = sum(known) / len(known)
    return {
        "overall_accuracy": 90.0,
        "mean_accuracy": mean + 5,
        "frequency_weighted_accuracy": 85.0,
        "miou": mean,
        "mean_dice": mean + 10,
        "classes_seen": len(known),
        "pixels": pixels,
        "class_accuracy": iou,
        "class_iou": iou,
        "class_dice": iou,
    }


def write_result(
    folder,
    *,
    loss="cross_entropy",
    seed=1,
    iou=None,
    classes=ROAD_NAMES,
    model="deeplabv3plus_resnet101",
    trained_on="acdc",
    tested_on="acdc",
    split="val",
    members=None,
    conditions=None,
    name=None,
    pixels=1000,
    fingerprint="f" * 64,
    commit="c" * 40,
    kind="best",
    training=None,
    testing=None,
    sha256=None,
    recorded=True,
    counts=None,
):
    """One file; scores from a generator seeded by the arguments unless ``iou`` is given."""
    if counts is not None:
        total = [part.sum(0).astype(float) for part in counts]
        values = iou_percent(*total)
        iou = {c: None if np.isnan(v) else float(v) for c, v in zip(classes, values, strict=False)}
        pixels = int(counts[1].sum())
    if iou is None:
        gain = 3.0 * (loss != "cross_entropy")
        generator = np.random.default_rng([seed, *map(ord, loss + model)])
        drawn = np.linspace(95, 20, len(classes)) + gain + generator.normal(0, 2, len(classes))
        iou = dict(zip(classes, drawn.tolist(), strict=True))
    stem = f"{kind}_{model}_{trained_on}_os16_seed{seed}"
    stem += "" if loss == "cross_entropy" else f"_{loss}"
    common = {"model": model, "dataset": trained_on, "random_seed": seed, "output_stride": 16}
    opts = {
        **common,
        **{"method": "supervised", "loss_type": loss, "lr": 0.001, "train_split": "train"},
        **{"condition": None, "data_root": f"/data/{seed}", "num_workers": seed},
        **({"member": list(members), "method": "ensemble"} if members else {}),
        **(training or {}),
    }
    results = {"total": scores_of(iou, pixels)}
    if members:
        results["member"] = {
            member: scores_of({c: v - 1 - index for c, v in iou.items()}, pixels)
            for index, member in enumerate(members)
        }
    if conditions:
        results["condition"] = {
            condition: scores_of({c: v - index for c, v in iou.items()}, pixels // len(conditions))
            for index, condition in enumerate(conditions)
        }
    path = folder / f"{name or f'{stem}_on_{tested_on}_{split}'}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "checkpoint": {
            "path": f"checkpoints/{stem}.pth",
            "sha256": sha256 or sha256_of(f"{stem} {training}".encode()).hexdigest(),
            "step": 900,
            "opts": opts if recorded else None,
        },
        "dataset": {
            "name": tested_on,
            "split": split,
            "condition": None,
            "images": 4,
            "fingerprint": fingerprint,
        },
        "classes": list(classes),
        "units": dict(SegmentationMetrics.units),
        "results": results,
        "seconds": 1.0,
        "opts": {
            **common,
            **{"dataset": tested_on, "val_split": split, "loss_type": "cross_entropy"},
            **{"method": "supervised", "eval_size": "native", "lr": 0.5, "random_seed": 1},
            **(testing or {}),
        },
        "commit": commit,
    }
    path.write_text(json.dumps(content))
    if counts is not None:
        hits, in_label, in_prediction = counts
        np.savez_compressed(
            path.with_name(f"{path.stem}.images.npz"),
            ids=np.array([f"image{index:03}" for index in range(len(hits))]),
            classes=np.array(classes),
            hits=hits,
            in_label=in_label,
            in_prediction=in_prediction,
        )
    return path
