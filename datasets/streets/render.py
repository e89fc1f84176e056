"""From three numbers to a picture with its label and depth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.dice import Dice
from datasets.streets.hazards import plan_with_obstacles
from datasets.streets.labelling import noisy_labels
from datasets.streets.look import LOOKS, sample_look
from datasets.streets.objects import plan_with_few_objects
from datasets.streets.placing import place
from datasets.streets.planning import SPLITS, plan_scene
from datasets.streets.poses import view_of
from datasets.streets.raster import draw
from datasets.streets.shading import shade
from datasets.streets.textures import Pixels
from datasets.streets.visibility import place_outlines
from datasets.streets.weather import develop
from datasets.taxonomy import ROAD_TRAIN_IDS

_TRAIN_IDS = np.array([ROAD_TRAIN_IDS.get(i, 255) for i in range(256)], np.uint8)


class Picture(NamedTuple):
    """A rendered scene."""

    image: NDArray[np.uint8]  # (3, H, W), RGB
    label_ids: NDArray[np.uint8]  # (H, W), of Cityscapes, and ``Surface.OBSTACLE``
    train_ids: NDArray[np.uint8]  # (H, W), void 255
    depth: Pixels  # (H, W), metres, at most ``shading.FARTHEST``


def render(
    seed: int,
    split: str,
    index: int,
    condition: str,
    size: tuple[int, int],
    *,
    has_obstacles: bool = False,
    few_objects: bool = False,
) -> Picture:
    """Draw the scene of (seed, split, index).

    Args:
        seed: of the scenes.
        split: "train", "val" or "test".
        index: place in the split.
        condition: one of ``LOOKS``; changes the image alone.
        size: (H, W).
        has_obstacles: whether one to four unknown obstacles stand in the scene.
        few_objects: whether only some kinds of objects are in the scene (see ``objects``).
    """
    assert not (has_obstacles and few_objects)
    with_few = plan_with_few_objects if few_objects else plan_scene
    plan = plan_with_obstacles if has_obstacles else with_few
    scene = plan(seed, split, index)
    view = view_of(scene, size)
    outlines = place_outlines(scene)
    placed = place(scene, view, outlines)
    drawing = draw(scene, placed, view)
    look = sample_look(
        condition, Dice(seed, SPLITS.index(split), index, 1 + LOOKS.index(condition))
    )
    frame = shade(scene, outlines, placed, drawing, look)
    label_ids = noisy_labels(frame.surface, scene.label_seed)
    depth = frame.depth.copy()
    image = develop(scene, frame, look)
    return Picture(image, label_ids, _TRAIN_IDS.take(label_ids), depth)
