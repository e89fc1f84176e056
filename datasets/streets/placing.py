"""Placing the models of a scene in front of its camera, as one list of faces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.ground import ground
from datasets.streets.mesh import Mesh, Mode
from datasets.streets.models import model
from datasets.streets.poses import View, move, poses
from datasets.streets.scene import Scene, Thing
from datasets.streets.visibility import Outlines, visible_things

_GROUND_POSE = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)


class Placed(NamedTuple):
    """The faces of the ground and of all things that can be seen, in metres from the camera.

    P points, F faces.
    """

    points: NDArray[np.float64]  # (P, 3)
    starts: NDArray[np.int64]  # (F,), first point of each face
    mesh: Mesh  # all meshes in one
    things: list[Thing]
    thing: NDArray[np.int64]  # (F,), index into ``things``, -1 for the ground
    order: NDArray[np.int64]  # (F,), from the back to the front
    flip: NDArray[np.float64]  # (F,), -1 where a thing is mirrored


def place(scene: Scene, view: View, outlines: Outlines) -> Placed:
    """Every model that can be seen at its place, the street bent, seen from the camera."""
    visible = visible_things(scene, view, outlines)
    things = [thing for thing, _ in visible]
    meshes = [ground(scene.street)]
    meshes += [model(thing.model, thing.options, level) for thing, level in visible]
    mesh = Mesh(*map(np.concatenate, zip(*meshes, strict=True)))
    indices = np.arange(len(meshes))
    owner = np.repeat(indices, [len(m.points) for m in meshes])
    thing = np.repeat(indices, [len(m.counts) for m in meshes])
    pose = np.concatenate([[_GROUND_POSE], poses(things)])
    points = move(scene, mesh.points, pose[owner])
    points[:, 1] -= scene.camera.height
    distance = np.array([np.inf] + [t.z - t.nearness for t in things])
    return Placed(
        points=points,
        starts=np.cumsum(mesh.counts) - mesh.counts,
        mesh=mesh,
        things=things,
        thing=thing - 1,
        order=np.argsort(-distance[thing], kind="stable"),
        flip=np.sign(pose[:, 4])[thing],
    )


def normals(placed: Placed, faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit normals of some faces, outwards; zero for cards, lines and veils. (n, 3)."""
    mode = placed.mesh.mode[faces]
    is_solid = np.flatnonzero(mode == Mode.SOLID)
    solid = faces[is_solid]
    first = placed.starts[solid]
    p0 = placed.points[first]
    ax, ay, az = (placed.points[first + 1] - p0).T
    bx, by, bz = (placed.points[first + 2] - p0).T
    across = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)
    length = np.sqrt((across * across).sum(1))
    normal = np.zeros((len(faces), 3))
    normal[is_solid] = across * (placed.flip[solid] / np.maximum(length, 1e-12))[:, None]
    normal[mode == Mode.GROUND, 1] = 1.0
    return normal
