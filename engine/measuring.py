"""What a test measures: flags, and the metrics that they ask for."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable, Sequence
from functools import partial

from datasets.base import SegDataset
from datasets.joined import Joined
from datasets.taxonomy import ROAD, ClassMapping, names_of
from datasets.taxonomy_adaptation import SYNTHIA_13, SYNTHIA_16
from engine.scoring import build_scores, ood_names
from engine.second_pass import component_sizes
from engine.trained import Trained
from methods import Method
from metrics import METRICS, MetricSettings
from metrics.base import StreamingMetric
from metrics.bootstrap import Bootstrap
from metrics.calibration import Calibration
from metrics.members import MemberMetrics
from metrics.segmentation import SegmentationMetrics
from uncertainty import SCORES
from utils.arguments import at_least, choice, within
from utils.types import IGNORE_INDEX, Consumer

OF_MEMBERS: dict[str, Callable[[Sequence[str]], StreamingMetric]] = {
    "segmentation": SegmentationMetrics,
    "calibration": Calibration,
}
MIOU_SUBSETS = {"synthia16": ("16", SYNTHIA_16), "synthia13": ("13", SYNTHIA_13)}
UNSHARED = frozenset(range(len(ROAD))) - set(SYNTHIA_16)
OF_UNKNOWN_OBJECTS = ("ood", "components", "image_ood", "meta_classification")


def add_measurement_flags(group: _ArgumentGroup) -> None:
    """What a test measures."""
    add = group.add_argument
    add(
        "--metrics",
        nargs="+",
        type=choice("metric", METRICS),
        default=["segmentation"],
        metavar="NAME",
        help=f"of a test: {', '.join(METRICS)}",
    )
    add(
        "--miou_subsets",
        choices=tuple(MIOU_SUBSETS),
        nargs="*",
        help="also the mIoU of the classes SYNTHIA shares; default: both after training on it",
    )
    add(
        "--ignore_unshared",
        action="store_true",
        help="labels of terrain, truck and train, which SYNTHIA lacks, are void; not published",
    )
    add("--ece_bins", type=at_least(1), default=15, help="of the calibration errors")
    add(
        "--ece_confidence",
        type=choice("score", [name for name, score in SCORES.items() if score.highest]),
        metavar="SCORE",
        help="1 - score / its maximum instead of the top probability",
    )
    add("--ood_threshold", type=float, nargs="+", metavar="T", help="components; default: best F1")
    add(
        "--component_sizes",
        type=at_least(0),
        nargs=2,
        metavar=("PRED", "TRUE"),
        help="fewest pixels of predicted and true components; default: the data set's",
    )
    add("--meta_threshold", type=within(0.01, 1), default=0.7, help="of entropy / log classes")
    add("--pavpu_patch", type=at_least(1), default=4, help="side of the patches, in pixels")
    add(
        "--flag_threshold",
        type=within(0, 1),
        default=0.05,
        metavar="T",
        help="flagged: pixels from 1 - T of the score's greatest value on",
    )
    add("--per_scene", action="store_true", help="report every scene, too")
    add("--image_bootstrap", type=at_least(0), default=0, metavar="N", help="resamples: intervals")
    add("--parity", choices=("none", "original"), default="none", help="add published variants")


def metric_settings(
    opts: Namespace, dataset: SegDataset, trained: Trained, sha256: str
) -> MetricSettings:
    """What the flags, the network and the data tell the metrics."""
    parts = dataset.parts if isinstance(dataset, Joined) else (dataset,)
    return MetricSettings(
        scores=build_scores(opts, opts.confidence, trained, sha256),
        ood_scores=build_scores(opts, ood_names(opts), trained, sha256),
        component_sizes=component_sizes(opts, dataset),
        meta_threshold=opts.meta_threshold,
        bins=opts.ece_bins,
        calibrated=SCORES[opts.ece_confidence] if opts.ece_confidence else None,
        parity=opts.parity == "original",
        patch=opts.pavpu_patch,
        flag_threshold=opts.flag_threshold,
        unannotated={part.name: part.unannotated for part in parts},
        subsets=miou_subsets(opts, dataset, trained),
        in_domain={(parts[0].name, item.condition) for item in parts[0].items},
        per_scene=opts.per_scene,
        bootstrap=Bootstrap(opts.image_bootstrap, opts.random_seed)
        if opts.image_bootstrap
        else None,
    )


def miou_subsets(
    opts: Namespace, dataset: SegDataset, trained: Trained
) -> dict[str, tuple[int, ...]]:
    """The train ids of ``--miou_subsets`` by name, where nothing is typed those that are usual.

    Raises:
        ValueError: if they are asked for among other classes than the 19 of roads.
    """
    road = trained.class_names == dataset.class_names == names_of(ROAD)
    chosen = opts.miou_subsets
    if chosen is None:
        learned = any((source.opts or {}).get("dataset") == "synthia" for source in trained.sources)
        chosen = MIOU_SUBSETS if road and learned else ()
    if chosen and not road:
        raise ValueError(
            f"--miou_subsets {' '.join(chosen)} are of the {len(ROAD)} road classes, which the"
            f" network or {dataset.name} has not: leave the flag out"
        )
    return dict(MIOU_SUBSETS[name] for name in chosen)


def without_unshared(
    opts: Namespace, mapping: ClassMapping | None, names: Sequence[str]
) -> ClassMapping | None:
    """How classes meet, with ``--ignore_unshared`` those void that SYNTHIA does not have.

    Args:
        opts: the flags.
        mapping: between the classes of network and data, None where they are the same.
        names: of the scored classes.

    Raises:
        ValueError: if they are not the 19 of roads.
    """
    if not opts.ignore_unshared:
        return mapping
    if tuple(names) != names_of(ROAD):
        raise ValueError(
            f"--ignore_unshared concerns the {len(ROAD)} road classes, and these are"
            f" {len(names)} ({', '.join(names[:3])}, ...): leave the flag out"
        )
    every = tuple(range(len(names)))
    meeting = mapping or ClassMapping(tuple(names), every, every)
    label = tuple(IGNORE_INDEX if index in UNSHARED else index for index in meeting.label)
    return meeting._replace(label=label)


def first_metrics(opts: Namespace) -> list[str]:
    """The metrics of the first pass; components need the thresholds that ood finds in it."""
    names = [name for name in opts.metrics if name != "components"]
    if len(names) < len(opts.metrics) and "ood" not in names and not opts.ood_threshold:
        names.append("ood")
    return names


def refuse_missing_labels(dataset: SegDataset, metrics: Sequence[str]) -> None:
    """Refuse metrics that compare classes on images that have no class labels.

    Raises:
        ValueError: naming the data set and a metric.
    """
    unfit = [name for name in metrics if name not in OF_UNKNOWN_OBJECTS]
    if unfit and not dataset.classes:
        raise ValueError(
            f"{dataset.name} has no class labels, which the metric {unfit[0]} needs: give"
            f" --metrics {' '.join(OF_UNKNOWN_OBJECTS[:2])}"
        )


def member_metrics(
    method: Method, class_names: Sequence[str], names: Sequence[str] = ("segmentation",)
) -> list[Consumer]:
    """Those of the named metrics that concern every member, where the method has members."""
    members = tuple(method.members())
    kinds = [kind for name, kind in OF_MEMBERS.items() if name in names]
    return [MemberMetrics(members, partial(kind, class_names)) for kind in kinds if members]
