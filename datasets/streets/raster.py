"""From placed faces to the face that each pixel shows.

Colour, label, depth and grain are looked up by face later, so each face is drawn once.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import Mode
from datasets.streets.placing import Placed, normals
from datasets.streets.poses import NEAR, View
from datasets.streets.scene import Scene

SUPERSAMPLE = 2  # samples per pixel and axis
# faces that belong to no mesh come after those that do
EXTRA_FACES = ("sky", "hood")

_PLAIN_MODES = (Mode.SOLID, Mode.CARD, Mode.GROUND)
_HOOD_DEPTH = 1.5  # metres
_FRACTION_BITS = 4  # of a sample's position


class Drawing(NamedTuple):
    """Which face each sample shows; n faces are drawn, then come the sky and the hood."""

    view: View
    samples: NDArray[np.int32]  # (SUPERSAMPLE H, SUPERSAMPLE W), face + (veil << face_bits)
    face_bits: int
    veils: NDArray[np.int64]  # face of each veil; entry 0 stands for none
    faces: NDArray[np.int64]  # (n,), the drawn ones among the placed, from back to front
    normal: NDArray[np.float64]  # (n, 3), outwards; zero for cards


def draw(scene: Scene, placed: Placed, view: View) -> Drawing:
    """Draw all faces from the back to the front."""
    corners, is_seen = _project(placed, view)
    faces = placed.order[is_seen[placed.order]]
    normal = normals(placed, faces)
    towards = (normal * placed.points[placed.starts[faces]]).sum(1) < 0
    towards |= placed.mesh.mode[faces] != Mode.SOLID
    faces, normal = faces[towards], normal[towards]
    face_bits = (len(faces) + len(EXTRA_FACES)).bit_length()
    samples = np.full((view.height * SUPERSAMPLE, view.width * SUPERSAMPLE), len(faces), np.int32)
    veils = _draw_faces(samples, placed, view, corners, faces)
    if scene.hood:
        hood = _hood(scene, view)
        cv2.fillConvexPoly(samples, hood, len(faces) + 1, cv2.LINE_8, _FRACTION_BITS)
    return Drawing(view, samples, face_bits, np.array(veils), faces, normal)


def _draw_faces(
    samples: NDArray[np.int32],
    placed: Placed,
    view: View,
    corners: NDArray[np.int32],
    faces: NDArray[np.int64],
) -> list[int]:
    """Draw the faces one over the other; the faces that are veils, after a first entry for none."""
    face_bits = (len(faces) + len(EXTRA_FACES)).bit_length()
    starts = placed.starts[faces]
    ends = (starts + placed.mesh.counts[faces]).tolist()
    modes = placed.mesh.mode[faces]
    is_plain = np.isin(modes, _PLAIN_MODES).tolist()
    veils = [-1]
    fill = cv2.fillConvexPoly
    for face, (start, end, plain) in enumerate(zip(starts.tolist(), ends, is_plain, strict=True)):
        polygon = corners[start:end]
        if plain:
            fill(samples, polygon, face, cv2.LINE_8, _FRACTION_BITS)
        elif modes[face] == Mode.VEIL:
            veils.append(face)
            _veil(samples, polygon, face_bits, len(veils) - 1)
        elif modes[face] == Mode.LINE:
            width = _line_width(placed, faces[face], view)
            cv2.polylines(samples, [polygon], False, face, width, cv2.LINE_8, _FRACTION_BITS)
        else:
            cv2.fillPoly(samples, [polygon], face, cv2.LINE_8, _FRACTION_BITS)
    return veils


def _project(placed: Placed, view: View) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Corners in fractions of a sample, (P, 2), and whether each face is in sight, (F,)."""
    x, y, z = placed.points.T
    scale = view.focal * SUPERSAMPLE / np.maximum(z, NEAR)
    # the centre of sample i is i in OpenCV and i + 1/2 here
    u = x * scale + (view.u0 * SUPERSAMPLE - 0.5)
    v = (view.v0 * SUPERSAMPLE - 0.5) - y * scale
    starts, least = placed.starts, placed.mesh.least
    left, right = np.minimum.reduceat(u, starts), np.maximum.reduceat(u, starts)
    high, low = np.minimum.reduceat(v, starts), np.maximum.reduceat(v, starts)
    seen = (right > 0) & (left < view.width * SUPERSAMPLE)
    seen &= (low > 0) & (high < view.height * SUPERSAMPLE)
    seen &= np.maximum.reduceat(z, starts) > NEAR
    across, down = right - left, low - high
    narrow = np.minimum(across, down)
    seen &= (narrow >= least * SUPERSAMPLE) & (narrow > 0.5)
    seen &= np.maximum(across, down) > 1.5
    corners = np.empty((len(u), 2), np.int32)
    for axis, place in enumerate((u, v)):
        fixed = place * (1 << _FRACTION_BITS) + 0.5
        corners[:, axis] = np.floor(np.clip(fixed, -(2**24), 2**24))
    return corners, seen


def _line_width(placed: Placed, face: int, view: View) -> int:
    """Width in whole samples of a face that is a line."""
    z = max(float(placed.points[placed.starts[face], 2]), NEAR)
    return max(int(placed.mesh.extent[face] * view.focal * SUPERSAMPLE / z + 0.5), 1)


def _veil(
    samples: NDArray[np.int32], polygon: NDArray[np.int32], face_bits: int, veil: int
) -> None:
    """Lay a veil over what is drawn so far; it replaces an earlier one."""
    x0, y0 = np.maximum((polygon.min(0) >> _FRACTION_BITS) - 1, 0)
    x1, y1 = (polygon.max(0) >> _FRACTION_BITS) + 2
    window = samples[y0:y1, x0:x1]
    if not window.size:
        return
    covered = np.zeros(window.shape, np.uint8)
    origin = np.array([x0, y0], np.int32) << _FRACTION_BITS
    cv2.fillConvexPoly(covered, polygon - origin, 1, cv2.LINE_8, _FRACTION_BITS)
    np.copyto(window, window & ((1 << face_bits) - 1) | veil << face_bits, where=covered > 0)


def _hood(scene: Scene, view: View) -> NDArray[np.int32]:
    """Outline of the ego vehicle's hood."""
    across = np.linspace(-0.1, 1.1, 25)
    curve = 1 - scene.hood * (1 - 2.2 * (across - 0.5) ** 2)
    x = np.concatenate([across, [1.1, -0.1]]) * view.width
    y = np.concatenate([curve, [1.2, 1.2]]) * view.height
    return (np.stack([x, y], 1) * SUPERSAMPLE * (1 << _FRACTION_BITS)).astype(np.int32)


def inverse_depth(placed: Placed, drawing: Drawing) -> NDArray[np.float64]:
    """Coefficients p of each face, (n + 2, 3): 1 / depth is p . (u, v, 1), in 1/m."""
    view, normal = drawing.view, drawing.normal
    first = placed.points[placed.starts[drawing.faces]]
    last = placed.points[placed.starts[drawing.faces] + placed.mesh.counts[drawing.faces] - 1]
    reach = (normal * first).sum(1)
    is_flat = (normal == 0).all(1) | (np.abs(reach) < 1e-3)
    safe = np.where(is_flat, 1.0, reach)
    a = normal[:, 0] / (view.focal * safe)
    b = -normal[:, 1] / (view.focal * safe)
    c = normal[:, 2] / safe - a * view.u0 - b * view.v0
    middle = np.maximum((first[:, 2] + last[:, 2]) / 2, NEAR)
    plane = np.zeros((len(normal) + len(EXTRA_FACES), 3))
    plane[:-2] = np.where(is_flat[:, None], 0.0, np.stack([a, b, c], 1))
    plane[:-2, 2] = np.where(is_flat, 1 / middle, c)
    plane[-1, 2] = 1 / _HOOD_DEPTH
    return plane
