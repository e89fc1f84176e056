"""Placing the models of a scene in front of its camera, as one list of faces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.ground import ground
from datasets.streets.mesh import Mesh, Mode
from datasets.streets.models import model
from datasets.streets.paints import COLOURS, OWN_PAINTS, Paint
from datasets.streets.poses import View, move, poses
from datasets.streets.scene import Scene, Thing
from datasets.streets.visibility import Outlines, visible_things

_GROUND_POSE = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
_NO_COLOURS = ((0.0, 0.0, 0.0),) * OWN_PAINTS


class Placed(NamedTuple):
    """The faces of the ground and of all things that can be seen, in metres from the camera.

    P points, F faces.
    """

    points: NDArray[np.float64]  # (P, 3)
    starts: NDArray[np.int64]  # (F,), first point of each face
    mesh: Mesh  # all meshes in one, at their own places
    albedo: NDArray[np.float64]  # (F, 3), sRGB 0..255 by white light
    normal: NDArray[np.float64]  # (F, 3), outwards and of unit length; zero for cards
    order: NDArray[np.int64]  # (F,), from the back to the front


def place(scene: Scene, view: View, outlines: Outlines) -> Placed:
    """Every model that can be seen at its place, the street bent, seen from the camera."""
    visible = visible_things(scene, view, outlines)
    things = [thing for thing, _ in visible]
    meshes = [ground(scene.street)]
    meshes += [model(thing.model, thing.options, level) for thing, level in visible]
    mesh = Mesh(*map(np.concatenate, zip(*meshes, strict=True)))
    indices = np.arange(len(meshes))
    owner = np.repeat(indices, [len(m.points) for m in meshes])
    thing_of = np.repeat(indices, [len(m.counts) for m in meshes])
    pose = np.concatenate([[_GROUND_POSE], poses(things)])
    points = move(scene, mesh.points, pose[owner])
    points[:, 1] -= scene.camera.height
    starts = np.cumsum(mesh.counts) - mesh.counts
    distance = np.array([np.inf] + [thing.z - thing.nearness for thing in things])
    return Placed(
        points=points,
        starts=starts,
        mesh=mesh,
        albedo=_albedo(scene, things, mesh, thing_of),
        normal=_normals(points, starts, mesh, np.sign(pose[:, 4])[thing_of]),
        order=np.argsort(-distance[thing_of], kind="stable"),
    )


def _albedo(
    scene: Scene, things: list[Thing], mesh: Mesh, thing_of: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Colour of every face by white light, (F, 3)."""
    street = scene.street
    own_colours: list[tuple] = [
        (street.asphalt, street.paving, street.soil, tuple(COLOURS[Paint.KERB]))
    ]
    own_colours += [thing.colours + _NO_COLOURS[len(thing.colours) :] for thing in things]
    colours = COLOURS[mesh.paint]
    own = np.flatnonzero(mesh.paint < OWN_PAINTS)
    colours[own] = np.array(own_colours)[thing_of[own], mesh.paint[own]]
    return colours * mesh.tone[:, None]


def _normals(
    points: NDArray[np.float64], starts: NDArray[np.int64], mesh: Mesh, flip: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Unit normals of solid faces and of the ground, zero for the others, (F, 3)."""
    solid = np.flatnonzero(mesh.mode == Mode.SOLID)
    first = starts[solid]
    p0 = points[first]
    ax, ay, az = (points[first + 1] - p0).T
    bx, by, bz = (points[first + 2] - p0).T
    across = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)
    length = np.sqrt((across * across).sum(1))
    normal = np.zeros((len(starts), 3))
    normal[solid] = across * (flip[solid] / np.maximum(length, 1e-12))[:, None]
    normal[mesh.mode == Mode.GROUND, 1] = 1.0
    return normal
