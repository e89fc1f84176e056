"""Shadows on the ground: cast by the sun, and where things stand."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets.poses import NEAR, View
from datasets.streets.scene import Scene
from datasets.streets.visibility import Outlines

_BEHIND = -6.0  # metres ahead, from which things throw shadows
_SHADOWS_END = 40.0  # metres beyond which shadows are slivers
_DARKNESS_END = 30.0  # the same for the darkness under things
_WITHOUT_DARKNESS = ("building", "tree")
_FRACTION_BITS = 4


def sun_direction(scene: Scene) -> NDArray[np.float64]:
    """Unit vector towards the sun: right, up, ahead."""
    azimuth, elevation = scene.sun
    across = np.cos(elevation)
    return np.array([np.sin(azimuth) * across, np.sin(elevation), -np.cos(azimuth) * across])


def shadow_masks(scene: Scene, view: View, outlines: Outlines, has_sun: bool) -> NDArray[np.uint8]:
    """Shares of light that are kept off level ground, (2, H, W) in 0..255.

    The first is the shadow of the sun (zero without it), the second the darkness under things.
    """
    masks = np.zeros((2, view.height, view.width), np.uint8)
    near = [thing.z if thing.casts and thing.z > _BEHIND else np.inf for thing in scene.things]
    distance = np.array(near)
    points = outlines.points
    if has_sun:
        sun = sun_direction(scene)
        fallen = _project(scene, view, points, sun / sun[1])
        for part in _parts(view, fallen, outlines, distance < _SHADOWS_END):
            _fill(masks[0], fallen[part])
    stands = [thing.model not in _WITHOUT_DARKNESS for thing in scene.things]
    is_low = points[:, 1] < 1.0
    feet = _project(scene, view, points, np.zeros(3))
    for part in _parts(view, feet, outlines, np.array(stands) & (distance < _DARKNESS_END)):
        _fill(masks[1], feet[part][is_low[part]])
    radius = max(1, view.height // 128)
    cv2.blur(masks[0], (2 * radius + 1, 2 * radius + 1), dst=masks[0])
    cv2.blur(masks[1], (6 * radius + 1, 2 * radius + 1), dst=masks[1])
    return masks


def _project(
    scene: Scene, view: View, points: NDArray[np.float64], towards: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Pixels at which the shadows of points fall, in fixed point."""
    x, height, z = points.T
    scale = view.focal / np.maximum(z - towards[2] * height, NEAR)
    u = view.u0 + (x - towards[0] * height) * scale
    v = view.v0 + scene.camera.height * scale
    place = np.stack([u, v], 1) * (1 << _FRACTION_BITS)
    return np.clip(place, -(2**24), 2**24).astype(np.int32)


def _parts(
    view: View, flat: NDArray[np.int32], outlines: Outlines, chosen: NDArray[np.bool_]
) -> Iterator[slice]:
    """The points of each chosen thing whose shadow may touch the picture."""
    low = np.minimum.reduceat(flat, outlines.starts) >> _FRACTION_BITS
    high = np.maximum.reduceat(flat, outlines.starts)
    in_sight = (high >= 0).all(1) & (low[:, 0] < view.width) & (low[:, 1] < view.height)
    ends = np.append(outlines.starts[1:], len(flat))
    for i in np.flatnonzero(in_sight & chosen):
        yield slice(outlines.starts[i], ends[i])


def _fill(mask: NDArray[np.uint8], points: NDArray[np.int32]) -> None:
    if len(points) > 2:
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 255, cv2.LINE_8, _FRACTION_BITS)
