"""Data sets by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from datasets.acdc import ACDC
from datasets.base import SegDataset
from datasets.camvid import CamVid
from datasets.cityscapes import Cityscapes
from datasets.coco import COCO14
from datasets.folder import Folder
from datasets.gta5 import GTA5
from datasets.idd import IDD
from datasets.kvasir import Kvasir
from datasets.lost_and_found import LostAndFound
from datasets.mapillary import Mapillary
from datasets.road_anomaly import RoadAnomaly
from datasets.robotcar import CityscapesRobotCar, RobotCar
from datasets.smiyc import SMIYCAnomaly, SMIYCObstacle
from datasets.streets import Streets, StreetsObjects, StreetsObstacles
from datasets.synthia import SYNTHIA
from datasets.transforms import Transform
from datasets.voc import VOC

DATASETS: dict[str, type[SegDataset]] = {
    kind.name: kind
    for kind in (
        *(Streets, Cityscapes, ACDC, IDD, Mapillary, CamVid, Folder),
        *(VOC, COCO14, Kvasir, StreetsObjects),
        *(GTA5, SYNTHIA, RobotCar, CityscapesRobotCar),
        *(StreetsObstacles, LostAndFound, RoadAnomaly, SMIYCAnomaly, SMIYCObstacle),
    )
}


def build_dataset(
    name: str,
    root: Path | str | None,
    split: str,
    *,
    transform: Transform | None = None,
    seed: int = 0,
    cache: Path | str | None = None,
    **options: Any,
) -> SegDataset:
    """One split of a data set.

    Args:
        name: a key of ``DATASETS``.
        root: the folder that holds the data; None for generated data.
        split: one of the data set's splits.
        transform: applied to every sample.
        seed: of the random transforms.
        cache: folder for decoded, resized arrays.
        options: more of what every data set takes, such as ``scenes``, and what only some take,
            such as ``year``; those of other data sets may be given too as long as they have their
            default values.

    Raises:
        ValueError: if the data is missing or incomplete, or an option does not apply.
    """
    own = {*own_options(DATASETS[name]), *inspect.signature(SegDataset).parameters}
    for option, value in options.items():
        takers = [kind for kind in DATASETS.values() if option in own_options(kind)]
        if option not in own and all(value != own_options(kind)[option] for kind in takers):
            raise ValueError(
                f"--{option} {value} does not apply to {name}; "
                f"it belongs to {' and '.join(kind.name for kind in takers)}"
            )
    return DATASETS[name](
        root,
        split,
        transform=transform,
        seed=seed,
        cache=cache,
        **{option: value for option, value in options.items() if option in own},
    )


def own_options(kind: type[SegDataset]) -> dict[str, Any]:
    """The options that only this data set takes, with their default values."""
    shared = inspect.signature(SegDataset).parameters
    return {
        option: parameter.default
        for option, parameter in inspect.signature(kind).parameters.items()
        if option not in shared and parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
