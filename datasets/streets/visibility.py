"""Which things of a scene can be seen, and in how much detail.

What a nearer facade hides is never placed nor drawn; the picture is the same without this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.buildings import DEPTH, facade_size
from datasets.streets.models import outline
from datasets.streets.poses import NEAR, View, move, poses
from datasets.streets.scene import Scene, Thing

_FACADES_END = 80.0  # metres beyond which a facade hides too little to be worth the look
_MARGIN = 2.0  # pixels; outlines are a little smaller than their models


class Outlines(NamedTuple):
    """Outlines of all things at their places."""

    points: NDArray[np.float64]  # (P, 3), as ``move`` returns them
    starts: NDArray[np.int64]  # (T,)


def place_outlines(scene: Scene) -> Outlines:
    """The outlines of a scene's things."""
    found = [outline(thing.model, thing.options) for thing in scene.things]
    counts = np.array([len(points) for points in found])
    pose = np.repeat(poses(scene.things), counts, 0)
    return Outlines(move(scene, np.concatenate(found), pose), np.cumsum(counts) - counts)


class _Cover(NamedTuple):
    """Rows that buildings hide in each column, (B, W); nothing where top is infinite."""

    top: NDArray[np.float64]
    base: NDArray[np.float64]


def visible_things(scene: Scene, view: View, outlines: Outlines) -> list[tuple[Thing, int]]:
    """The things that can be seen, each with its level of detail (see ``models.model``)."""
    x, y, z = outlines.points.T
    scale = view.focal / np.maximum(z, NEAR)
    u, v = view.u0 + x * scale, view.v0 - (y - scene.camera.height) * scale
    left = np.minimum.reduceat(u, outlines.starts) - _MARGIN
    right = np.maximum.reduceat(u, outlines.starts) + _MARGIN
    top = np.minimum.reduceat(v, outlines.starts) - _MARGIN
    base = np.maximum.reduceat(v, outlines.starts) + _MARGIN
    nearest = np.minimum.reduceat(z, outlines.starts)
    seen = (np.maximum.reduceat(z, outlines.starts) > NEAR) & (right > 0) & (left < view.width)
    seen &= (base > 0) & (top < view.height)
    level = np.frexp(view.focal / np.maximum(nearest, 1.0))[1] - 1
    distance = np.array([thing.z - thing.nearness for thing in scene.things])
    buildings = [
        i
        for i, thing in enumerate(scene.things)
        if thing.model == "building" and seen[i] and thing.z < _FACADES_END
    ]
    cover = _building_cover(scene, view, [scene.things[i] for i in buildings])
    row_of = {i: row for row, i in enumerate(buildings)}
    # all that buildings hide crosses the horizon, so the union of two covers has no gap
    hidden_from, hidden_to = np.full(view.width, np.inf), np.full(view.width, -np.inf)
    first = np.maximum(left, 0).astype(np.int64).tolist()
    last = np.minimum(right + 1, view.width).astype(np.int64).tolist()
    chosen = []
    for i in np.argsort(distance, kind="stable").tolist():
        if not seen[i]:
            continue
        part = slice(first[i], last[i])
        if hidden_from[part].max() <= top[i] and hidden_to[part].min() >= base[i]:
            continue
        chosen.append(i)
        if i in row_of:
            np.minimum(hidden_from, cover.top[row_of[i]], out=hidden_from)
            np.maximum(hidden_to, cover.base[row_of[i]], out=hidden_to)
    return [(scene.things[i], int(level[i])) for i in sorted(chosen)]


def _building_cover(scene: Scene, view: View, buildings: list[Thing]) -> _Cover:
    """What the facades and gables of some buildings hide, up to their eaves."""
    sizes = np.array([facade_size(*thing.options[:3]) for thing in buildings]).reshape(-1, 2)
    corners = np.zeros((3, len(buildings), 3))
    corners[1, :, 2] = sizes[:, 0]  # the facade's other end
    corners[2, :, 0] = DEPTH  # the gable's
    pose = poses(buildings)
    placed = move(scene, corners.reshape(-1, 3), np.tile(pose, (3, 1))).reshape(3, -1, 3)
    eye, height = scene.camera.height, sizes[:, 1]
    parts = []
    for end in (1, 2):
        ends = placed[[0, end]]
        scale = view.focal / np.maximum(ends[..., 2], NEAR)
        u = view.u0 + ends[..., 0] * scale
        v = view.v0 - (height - eye) * scale, view.v0 + eye * scale
        parts.append(_columns(view, u, *v, ends[..., 2].min(0) > NEAR))
    return _Cover(np.minimum(parts[0].top, parts[1].top), np.maximum(parts[0].base, parts[1].base))


def _columns(
    view: View,
    u: NDArray[np.float64],
    top: NDArray[np.float64],
    base: NDArray[np.float64],
    is_ahead: NDArray[np.bool_],
) -> _Cover:
    """Columns that upright rectangles hide, from the positions of their two ends, (2, B) each."""
    span = u[1] - u[0]
    safe = np.where(np.abs(span) < 1, 1, span)[:, None]
    share = (np.arange(view.width + 1) - u[0][:, None]) / safe
    rows = [v[0][:, None] + (v[1] - v[0])[:, None] * share for v in (top + 1, base - 1)]
    # a column is hidden where its both edges are
    inside = (share >= 0) & (share <= 1) & (is_ahead & (np.abs(span) >= 1))[:, None]
    inside = inside[:, :-1] & inside[:, 1:]
    return _Cover(
        np.where(inside, np.maximum(rows[0][:, :-1], rows[0][:, 1:]), np.inf),
        np.where(inside, np.minimum(rows[1][:, :-1], rows[1][:, 1:]), -np.inf),
    )
