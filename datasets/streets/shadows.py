"""Shadows on the ground: cast by the sun, and where things stand."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets.poses import NEAR, View
from datasets.streets.scene import Scene
from datasets.streets.visibility import Outlines

_FAR = 40.0  # metres beyond which shadows are slivers
_NEAR_ENOUGH = 30.0  # metres up to which the darkness under things is seen
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
    points = outlines.points
    sun = sun_direction(scene)
    cast = _project(scene, view, points, sun / sun[1]) if has_sun else None
    under = _project(scene, view, points, np.zeros(3))
    ends = np.append(outlines.starts[1:], len(points))
    is_low = points[:, 1] < 1.0
    for mask, flat in ((masks[0], cast), (masks[1], under)):
        if flat is None:
            continue
        shown = _in_sight(view, flat, outlines.starts)
        for i in np.flatnonzero(shown).tolist():
            thing = scene.things[i]
            part = slice(outlines.starts[i], ends[i])
            if not thing.casts or not -6 < thing.z < _FAR:
                continue
            if flat is cast:
                _fill(mask, flat[part])
            elif thing.model not in _WITHOUT_DARKNESS and thing.z < _NEAR_ENOUGH:
                _fill(mask, flat[part][is_low[part]])
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


def _in_sight(view: View, flat: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which groups of points may touch the picture."""
    low = np.minimum.reduceat(flat, starts) >> _FRACTION_BITS
    high = np.maximum.reduceat(flat, starts)
    return (high >= 0).all(1) & (low[:, 0] < view.width) & (low[:, 1] < view.height)


def _fill(mask: NDArray[np.uint8], points: NDArray[np.int32]) -> None:
    if len(points) > 2:
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 255, cv2.LINE_8, _FRACTION_BITS)
