"""Models by name, with less detail where they are far away."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets.buildings import building
from datasets.streets.cars import car
from datasets.streets.furniture import (
    clutter,
    fence,
    hedge,
    light_from_behind,
    pole,
    street_lamp,
    traffic_light,
    traffic_sign,
    tree,
    wall,
)
from datasets.streets.mesh import Mesh
from datasets.streets.obstacles import obstacle
from datasets.streets.people import bicycle, motorcycle, person, rider
from datasets.streets.vehicles import bus, tram_car, truck_cab, truck_load

MODELS: dict[str, Callable[..., Mesh]] = {
    "bicycle": bicycle,
    "building": building,
    "bus": bus,
    "car": car,
    "clutter": clutter,
    "fence": fence,
    "hedge": hedge,
    "light_from_behind": light_from_behind,
    "motorcycle": motorcycle,
    "obstacle": obstacle,
    "person": person,
    "pole": pole,
    "rider": rider,
    "street_lamp": street_lamp,
    "traffic_light": traffic_light,
    "traffic_sign": traffic_sign,
    "tram_car": tram_car,
    "tree": tree,
    "truck_cab": truck_cab,
    "truck_load": truck_load,
    "wall": wall,
}


@cache
def model(name: str, options: tuple, level: int) -> Mesh:
    """A model without the details that cannot be seen at 2^level pixels per metre."""
    mesh = MODELS[name](*options)
    starts = np.cumsum(mesh.counts) - mesh.counts
    spans = np.maximum.reduceat(mesh.points, starts) - np.minimum.reduceat(mesh.points, starts)
    width = np.sort(spans, 1)[:, 1]  # across the face's longest side
    keep = width * 2.0 ** (level + 1) >= mesh.least
    return Mesh(
        mesh.points[np.repeat(keep, mesh.counts)],
        mesh.counts[keep],
        mesh.codes[keep],
        mesh.amounts[keep],
    )


@cache
def outline(name: str, options: tuple) -> NDArray[np.float64]:
    """A few points whose hull is roughly a model's, (n, 3)."""
    points = MODELS[name](*options).points
    if name == "obstacle":  # round ones throw round shadows
        return points
    low, high = points.min(0), points.max(0)
    if high[2] > low[2]:
        corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
        return np.ascontiguousarray(corners)
    hull = cv2.convexHull(points[:, :2].astype(np.float32))[:, 0]
    thinned = hull[:: max(1, len(hull) // 14)]
    return np.pad(thinned.astype(np.float64), ((0, 0), (0, 1)))
