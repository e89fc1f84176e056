"""Where things stand: from a model's own axes to the camera's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.scene import Scene, Thing

NEAR = 0.4  # metres in front of the camera, where the picture begins


class View(NamedTuple):
    """A camera at one image size, in pixels."""

    height: int
    width: int
    focal: float
    u0: float  # column of the vanishing point
    v0: float  # row of the horizon


def view_of(scene: Scene, size: tuple[int, int]) -> View:
    """The scene's camera for an image of (H, W); a tall image keeps a wide one's focal length."""
    height, width = size
    camera = scene.camera
    focal = camera.focal * max(width, 2 * height)
    return View(height, width, focal, camera.centre * width, camera.horizon * height)


def poses(things: Sequence[Thing]) -> NDArray[np.float64]:
    """Place, turn and scale of things as ``move`` takes them, (T, 7)."""
    rows = [(t.x, t.y, t.z, t.turn, *t.scale) for t in things]
    return np.array(rows, np.float64).reshape(-1, 7)


def move(
    scene: Scene, points: NDArray[np.float64], pose: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scale, turn and shift points, each by its own pose, then bend the street.

    Args:
        scene: tells bend and camera.
        points: (P, 3), about their own origin.
        pose: (P, 7): x, y, z, quarter turns to the left, and factors along x, y and z.

    Returns:
        (P, 3): metres to the right of the camera, above the road, and ahead.
    """
    x0, y0, z0, turn, *scale = pose.T
    x, y, z = (points[:, axis] * scale[axis] for axis in range(3))
    quarter = turn.astype(np.int64) & 3
    cos, sin = _COS[quarter], _SIN[quarter]
    ahead = x * sin + z * cos + z0
    right = x * cos - z * sin + x0 + scene.bend * ahead * np.abs(ahead) - scene.camera.x
    return np.stack([right, y + y0, ahead], 1)


_COS, _SIN = np.array([1.0, 0, -1, 0]), np.array([0.0, 1, 0, -1])
