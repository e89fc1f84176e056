"""From placed faces to the face that each pixel shows.

Colour, label, depth and grain are looked up by face later, so each face is drawn once.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import Mode
from datasets.streets.placing import Placed
from datasets.streets.poses import NEAR, View
from datasets.streets.scene import Scene

SUPERSAMPLE = 2  # samples per pixel and axis
# faces that belong to no mesh come after those that do
EXTRA_FACES = ("sky", "hood")

_PLAIN_MODES = (Mode.SOLID, Mode.CARD, Mode.GROUND)
_FRACTION_BITS = 4  # of a sample's position


class Drawing(NamedTuple):
    """Which face each sample shows; F faces of the scene, then the sky and the hood."""

    view: View
    samples: NDArray[np.int32]  # (SUPERSAMPLE H, SUPERSAMPLE W), face + (veil << face_bits)
    face_bits: int
    veils: NDArray[np.int64]  # face of each veil; entry 0 stands for none
    plane: NDArray[np.float64]  # (F + 2, 3), inverse depth in 1/m is plane . (u, v, 1)


def draw(scene: Scene, placed: Placed, view: View) -> Drawing:
    """Draw all faces from the back to the front."""
    num_faces = len(placed.starts)
    face_bits = (num_faces + len(EXTRA_FACES)).bit_length()
    corners, visible = _project(placed, view)
    samples = np.full((view.height * SUPERSAMPLE, view.width * SUPERSAMPLE), num_faces, np.int32)
    chosen = placed.order[visible[placed.order]]
    starts, counts = placed.starts[chosen], placed.mesh.counts[chosen]
    is_plain = np.isin(placed.mesh.mode[chosen], _PLAIN_MODES)
    veils = [-1]
    fill = cv2.fillConvexPoly
    for face, start, end, plain in zip(
        chosen.tolist(), starts.tolist(), (starts + counts).tolist(), is_plain.tolist(), strict=True
    ):
        polygon = corners[start:end]
        if plain:
            fill(samples, polygon, face, cv2.LINE_8, _FRACTION_BITS)
        elif placed.mesh.mode[face] == Mode.VEIL:
            veils.append(face)
            _veil(samples, polygon, face_bits, len(veils) - 1)
        elif placed.mesh.mode[face] == Mode.LINE:
            width = _line_width(placed, face, view)
            cv2.polylines(samples, [polygon], False, face, width, cv2.LINE_8, _FRACTION_BITS)
        else:
            cv2.fillPoly(samples, [polygon], face, cv2.LINE_8, _FRACTION_BITS)
    if scene.hood:
        fill(samples, _hood(scene, view), num_faces + 1, cv2.LINE_8, _FRACTION_BITS)
    return Drawing(view, samples, face_bits, np.array(veils), _planes(placed, view))


def _project(placed: Placed, view: View) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Corners in fractions of a sample, (P, 2), and whether each face can be seen, (F,)."""
    x, y, z = placed.points.T
    scale = view.focal * SUPERSAMPLE / np.maximum(z, NEAR)
    u = view.u0 * SUPERSAMPLE + x * scale
    v = view.v0 * SUPERSAMPLE - y * scale
    starts, mesh = placed.starts, placed.mesh
    left, right = np.minimum.reduceat(u, starts), np.maximum.reduceat(u, starts)
    high, low = np.minimum.reduceat(v, starts), np.maximum.reduceat(v, starts)
    seen = (right > 0) & (left < view.width * SUPERSAMPLE)
    seen &= (low > 0) & (high < view.height * SUPERSAMPLE)
    seen &= np.maximum.reduceat(z, starts) > NEAR
    across, down = right - left, low - high
    seen &= np.minimum(across, down) >= mesh.least * SUPERSAMPLE
    seen &= (np.maximum(across, down) > 1.5) & (np.minimum(across, down) > 0.2)
    towards = (placed.normal * placed.points[starts]).sum(1) < 0
    seen &= towards | (mesh.mode != Mode.SOLID)
    # the centre of sample i is i in OpenCV and i + 1/2 here
    corners = np.stack([u - 0.5, v - 0.5], 1) * (1 << _FRACTION_BITS)
    return np.clip(np.floor(corners + 0.5), -(2**24), 2**24).astype(np.int32), seen


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


def _planes(placed: Placed, view: View) -> NDArray[np.float64]:
    """Coefficients of inverse depth over the image, (F + 2, 3)."""
    starts, counts = placed.starts, placed.mesh.counts
    normal = placed.normal
    reach = (normal * placed.points[starts]).sum(1)
    is_flat = (normal == 0).all(1) | (np.abs(reach) < 1e-3)
    safe = np.where(is_flat, 1.0, reach)
    a = normal[:, 0] / (view.focal * safe)
    b = -normal[:, 1] / (view.focal * safe)
    c = normal[:, 2] / safe - a * view.u0 - b * view.v0
    depth = np.add.reduceat(placed.points[:, 2], starts) / counts
    plane = np.zeros((len(starts) + len(EXTRA_FACES), 3))
    plane[:-2] = np.stack([a, b, c], 1)
    plane[:-2][is_flat] = 0.0
    plane[:-2, 2][is_flat] = 1 / np.maximum(depth[is_flat], NEAR)
    plane[-1, 2] = 1 / 1.5  # the hood
    return plane
