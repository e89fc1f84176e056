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
    reliability=None,
    datasets=None,
    calibrator=None,
    parts=None,
    image_ood=None,
    segmented=True,
):
    """One file; scores from a generator seeded by the arguments unless ``iou`` is given.

    ``reliability`` is added to the whole, ``datasets`` are by name what is added to the data sets
    of a joined test set; each scores 10 % less than the one before it. Without ``segmented`` the
    whole holds nothing else, as that of a data set without class labels.
    """
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
    results = {"total": (scores_of(iou, pixels) if segmented else {}) | (reliability or {})}
    if datasets:
        results["dataset"] = {
            name: scores_of({c: v - 10 * index for c, v in iou.items()}, pixels // len(datasets))
            | own
            for index, (name, own) in enumerate(datasets.items())
        }
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
    if image_ood:
        results["image_ood"] = image_ood
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
            **({"parts": parts} if parts else {}),
        },
        **({"calibrator": calibrator} if calibrator else {}),
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


def reliability_of(seed=1, *, sharpness=1.5, scores=("msp",), ood=False, pixels=4000):
    """Calibration and misclassification of made-up pixels, and detection of unknown ones.

    ``sharpness`` 1 is calibrated; more is too sure. The numbers follow from the pixels.
    """
    generator = np.random.default_rng([seed, round(100 * sharpness)])
    chance = generator.beta(4, 1, pixels)
    right = generator.random(pixels) < chance
    confidence = chance ** (1 / sharpness)
    part = {"calibration": calibration_of(confidence, right)}
    part["misclassification"] = {score: errors_of(1 - confidence, ~right) for score in scores}
    if ood:
        unknown = generator.random(pixels) < 0.1
        uncertainty = np.clip(1 - confidence + 0.2 * unknown, 0, 1)
        part["ood"] = {score: unknown_of(uncertainty, unknown) for score in scores}
    return part


def calibration_of(confidence, right, bins=15):
    """``calibration`` of pixels by their confidence and whether they are right."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, bins) for values in (confidence, right)]
    means = [
        [100 * s / n if n else None for s, n in zip(sum_, count.tolist(), strict=True)]
        for sum_ in sums
    ]
    gaps = np.abs(sums[0] - sums[1])
    order = np.argsort(confidence)
    return {
        "pixels": len(right),
        "accuracy": 100 * right.mean(),
        "mean_confidence": 100 * confidence.mean(),
        "ece": 100 * gaps.sum() / len(right),
        "ece_equal_mass": 100 * gaps.sum() / len(right) + 0.1,
        "ks_error": 100 * np.abs(np.cumsum((confidence - right)[order])).max() / len(right),
        "mce": 100 * np.max(gaps[count > 0] / count[count > 0]),
        "classwise_ece": 1.5,
        "class_ece": {"road": 1.0, "train": None},
        "nll": -np.log(np.where(right, confidence, 1 - confidence).clip(1e-6)).mean(),
        "brier": 2 * np.square(confidence - right).mean(),
        "diagram": {"count": count.tolist(), "confidence": means[0], "accuracy": means[1]},
    }


def detection_of(uncertainty, event):
    """Areas and curves of a score that is to find an event."""
    order = np.argsort(-uncertainty, kind="stable")
    found = np.cumsum(event[order]) / event.sum()
    false = np.cumsum(~event[order]) / (~event).sum()
    precision = np.cumsum(event[order]) / np.arange(1, len(event) + 1)
    shown = np.linspace(0, len(event) - 1, 101).astype(int)
    return {
        "auroc": 100 * np.trapezoid(found, false),
        "auroc_error_bound": 0.0,
        "fpr95": 100 * false[np.argmax(found >= 0.95)],
        "roc": {"fpr": (100 * false[shown]).tolist(), "tpr": (100 * found[shown]).tolist()},
        "pr": {
            "recall": (100 * found[shown]).tolist(),
            "precision": (100 * precision[shown]).tolist(),
        },
    }, 100 * np.sum(np.diff(found, prepend=0) * precision)


def histogram_of(uncertainty, event, names):
    """The score of pixels without and with an event, by these names."""
    edges = np.linspace(min(0, uncertainty.min()), max(1, uncertainty.max()), 51)
    counts = (np.histogram(uncertainty[chosen], edges)[0] for chosen in (~event, event))
    return {"edges": edges.tolist(), **{n: c.tolist() for n, c in zip(names, counts, strict=True)}}


def errors_of(uncertainty, wrong):
    """``misclassification`` of pixels by one score."""
    detection, aupr = detection_of(uncertainty, wrong)
    order = np.argsort(uncertainty, kind="stable")
    risk = np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)
    shown = np.linspace(0, len(wrong) - 1, 101).astype(int)[1:]
    return {
        "pixels": len(wrong),
        "error_rate": 100 * wrong.mean(),
        "prr": 2 * detection["auroc"] - 100,
        **detection,
        "aupr_error": aupr,
        "aupr_success": 95.0,
        "aurc": 100 * risk.mean(),
        "augrc": 100 * np.mean(np.cumsum(wrong[order])) / len(wrong),
        "risk_at_coverage": {
            str(share): 100 * risk[len(wrong) * share // 100 - 1] for share in (50, 80, 90, 95)
        },
        "curve": {
            "coverage": (100 * (shown + 1) / len(wrong)).tolist(),
            "risk": (100 * risk[shown]).tolist(),
        },
        "histogram": histogram_of(uncertainty, wrong, ("right", "wrong")),
    }


def unknown_of(uncertainty, unknown):
    """``ood`` of pixels by one score."""
    detection, aupr = detection_of(uncertainty, unknown)
    return {
        "pixels": len(unknown),
        "ood_pixels": int(unknown.sum()),
        **detection,
        "aupr_out": aupr,
        "aupr_in": 97.0,
        "f1": 50.0,
        "f1_threshold": 0.4,
        "tpr95_threshold": float(np.quantile(uncertainty[unknown], 0.05)),
        "histogram": histogram_of(uncertainty, unknown, ("in", "out")),
    }


def search_of(seed=1, scores=("abet",), *, quality=2.0, components=True, pixels=4000):
    """``ood`` and ``components`` of made-up pixels by several scores, the first one the best."""
    generator = np.random.default_rng([seed, round(100 * quality)])
    unknown = generator.random(pixels) < 0.1
    part = {"ood": {}}
    for place, score in enumerate(scores):
        uncertainty = generator.normal(0, 1, pixels) + quality / (1 + place) * unknown - 5
        part["ood"][score] = unknown_of(uncertainty, unknown)
    if components:
        part["components"] = {
            score: components_of(60 * quality / (1 + place) + seed)
            for place, score in enumerate(scores)
        }
    return part


def components_of(f1, threshold=-2.5):
    """``components`` of one score."""
    by_level = {"25": f1 / 2, "50": f1 / 3, "75": f1 / 4}
    return {
        "threshold": threshold,
        "siou": f1 / 3,
        "ppv": f1 / 5,
        "f1": f1 / 4,
        "gt_components": 12,
        "predicted_components": 20,
        "tp": {"25": 8, "50": 5, "75": 2},
        "fn": {"25": 4, "50": 7, "75": 10},
        "fp": {"25": 3, "50": 6, "75": 9},
        "f1_at": by_level,
    }


META = {
    "segments": 40,
    "false_positives": 30,
    "missed": 4,
    "false_positives_after": 11,
    "missed_after": 5,
    "auroc": 88.0,
    "aupr": 91.5,
    "accuracy": 80.0,
}


def image_ood_of(*names):
    """``image_ood`` by msp of the first data set against each of the others."""
    against = {
        name: {"images": 8, "auroc": 90.0 - place, "aupr_in": 88.0, "aupr_out": 87.0, "fpr95": 40.0}
        for place, name in enumerate(names[1:])
    }
    return {"msp": {"in_domain": names[0], "against": against}}
