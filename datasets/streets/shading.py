"""Light on a drawing: from the faces that pixels show to a picture, its labels and its depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets import textures
from datasets.streets.look import Look
from datasets.streets.mesh import Mode
from datasets.streets.paints import COLOURS, DAY_GLOW, GLOW, OWN_PAINTS, Paint, Surface
from datasets.streets.placing import Placed
from datasets.streets.poses import NEAR, View
from datasets.streets.raster import SUPERSAMPLE, Drawing, inverse_depth
from datasets.streets.scene import Scene
from datasets.streets.shadows import shadow_masks, sun_direction
from datasets.streets.textures import Grain, Pixels
from datasets.streets.visibility import Outlines

_NO_COLOURS = ((0.0, 0.0, 0.0),) * OWN_PAINTS
FARTHEST = 400.0  # metres, where the sky is taken to be


@dataclass
class Frame:
    """A picture in the making, with all that later steps read; H rows, W columns."""

    rgb: Pixels  # (3, H, W), sRGB 0..255 and above
    view: View
    surface: NDArray[np.uint8]  # (H, W), label id without noise
    depth: Pixels  # (H, W), metres
    x: Pixels  # (H, W), metres to the right of the camera
    y: Pixels  # (H, W), metres above the road
    is_level: NDArray[np.bool_]  # (H, W), ground
    glow: Pixels | None  # (H, W, 3), light given off, at night


class _FaceTable(NamedTuple):
    """Looks of the faces, then of the sky and the hood."""

    colour: NDArray[np.uint32]  # packed 8-bit RGBA
    surface: NDArray[np.uint8]
    grain: NDArray[np.uint8]
    level: NDArray[np.bool_]
    opacity: NDArray[np.float64]  # of veils
    glow: NDArray[np.float32]  # (n + 2, 3), at night


def shade(scene: Scene, outlines: Outlines, placed: Placed, drawing: Drawing, look: Look) -> Frame:
    """The picture by the light of the sun and the sky, before weather and camera.

    Args:
        scene: what is shown.
        outlines: of its things, for their shadows.
        placed: its faces.
        drawing: which of them each sample shows.
        look: the light.
    """
    table = _face_table(scene, placed, drawing, look)
    picture = _colours(drawing, table)
    face = _front_faces(drawing)
    frame = _geometry(scene, placed, drawing, face, table, picture)
    _apply_grain(scene, frame, table.grain.take(face), look.grain)
    _apply_shadows(scene, outlines, frame, look)
    _paint_sky(scene, frame, look)
    _polish_hood(frame)
    if look.lamps:
        frame.glow = table.glow[face]
    return frame


def _albedo(scene: Scene, placed: Placed, faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Colour of some faces by white light, (n, 3)."""
    street = scene.street
    own_colours: list[tuple] = [
        thing.colours + _NO_COLOURS[len(thing.colours) :] for thing in placed.things
    ]
    own_colours.append((street.asphalt, street.paving, street.soil, tuple(COLOURS[Paint.KERB])))
    paint = placed.mesh.paint[faces]
    colours = COLOURS[paint]
    own = np.flatnonzero(paint < OWN_PAINTS)
    colours[own] = np.array(own_colours)[placed.thing[faces[own]], paint[own]]
    return colours * placed.mesh.tone[faces][:, None]


def _face_table(scene: Scene, placed: Placed, drawing: Drawing, look: Look) -> _FaceTable:
    codes, tone = placed.mesh.codes[drawing.faces], placed.mesh.tone[drawing.faces]
    paint, surface, grain, mode = codes.T
    normal = drawing.normal
    sun = sun_direction(scene)
    facing = np.maximum((normal * sun).sum(1), 0.0)
    is_card = (normal == 0).all(1)
    facing[is_card] = 0.42 + 0.3 * max(0.0, -float(sun[2]))
    up = np.where(is_card, 0.3, normal[:, 1])
    light = np.array(look.ambient) * (0.82 + 0.18 * up)[:, None]
    light += np.array(look.sun) * facing[:, None]
    albedo = _albedo(scene, placed, drawing.faces)
    if look.snow:
        white = np.clip(up * 1.5 - 0.3, 0, 1) * (mode == Mode.SOLID) * look.snow
        leaves = (surface == Surface.VEGETATION) & (paint != Paint.TRUNK)
        white = np.where(leaves, np.clip(tone * 1.5 - 1.1, 0, 0.7) * look.snow, white)
        albedo += (np.array([232, 236, 242]) - albedo) * white[:, None]
    colour = albedo * light + DAY_GLOW[paint] * (1 - look.lamps) + GLOW[paint] * look.lamps
    hood = np.array(scene.town.bus[1]) * 0.12 + 22
    extra = np.array([look.horizon, hood * np.array(look.ambient)])
    colour = np.clip(np.concatenate([colour, extra]) + 0.5, 0, 255).astype(np.uint32)
    packed = colour[:, 0] | colour[:, 1] << 8 | colour[:, 2] << 16
    opacity = placed.mesh.extent[drawing.faces]
    return _FaceTable(
        packed.astype("<u4"),
        np.append(surface, [Surface.SKY, Surface.EGO_VEHICLE]).astype(np.uint8),
        np.append(grain, [Grain.PLAIN, Grain.PLAIN]).astype(np.uint8),
        np.append(mode == Mode.GROUND, [False, False]),
        opacity,
        np.append(GLOW[paint], np.zeros((2, 3)), 0).astype(np.float32),
    )


def _front_faces(drawing: Drawing) -> NDArray[np.int64]:
    """The face or veil at one sample of each pixel, (H, W)."""
    one = drawing.samples[::SUPERSAMPLE, ::SUPERSAMPLE].astype(np.int64)
    if len(drawing.veils) == 1:
        return one
    veil = one >> drawing.face_bits
    return np.where(veil > 0, drawing.veils.take(veil), one & ((1 << drawing.face_bits) - 1))


def _colours(drawing: Drawing, table: _FaceTable) -> Pixels:
    """Colour of each pixel, the mean over its samples, (3, H, W)."""
    samples = drawing.samples
    if len(drawing.veils) == 1:
        packed = table.colour.take(samples)
    else:
        packed = table.colour.take(samples & ((1 << drawing.face_bits) - 1))
        veiled = np.flatnonzero(samples >> drawing.face_bits)
        veil = drawing.veils[samples.ravel()[veiled] >> drawing.face_bits]
        opacity = (table.opacity[veil] * 256).astype(np.uint32)[:, None]
        behind = packed.ravel()[veiled].view(np.uint8).reshape(-1, 4)
        front = table.colour[veil].view(np.uint8).reshape(-1, 4)
        mixed = (front * opacity + behind * (256 - opacity)) >> 8
        packed.ravel()[veiled] = mixed.astype(np.uint8).view("<u4")[:, 0]
    rows, columns = samples.shape
    rgba = packed.view(np.uint8).reshape(rows, columns, 4)
    size = (drawing.view.width, drawing.view.height)
    small = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., :3].transpose(2, 0, 1), np.float32)


def _geometry(
    scene: Scene,
    placed: Placed,
    drawing: Drawing,
    face: NDArray,
    table: _FaceTable,
    picture: Pixels,
) -> Frame:
    view = drawing.view
    plane = inverse_depth(placed, drawing).astype(np.float32)
    u = np.arange(view.width, dtype=np.float32) + np.float32(0.5)
    v = (np.arange(view.height, dtype=np.float32) + np.float32(0.5))[:, None]
    inverse = plane[:, 0].take(face) * u
    inverse += plane[:, 1].take(face) * v
    inverse += plane[:, 2].take(face)
    depth = 1 / np.clip(inverse, np.float32(1 / FARTHEST), np.float32(1 / NEAR))
    per_pixel = depth * np.float32(1 / view.focal)
    x = (u - np.float32(view.u0)) * per_pixel
    y = np.float32(scene.camera.height) - (v - np.float32(view.v0)) * per_pixel
    return Frame(picture, view, table.surface.take(face), depth, x, y, table.level.take(face), None)


def _apply_grain(scene: Scene, frame: Frame, grain: NDArray[np.uint8], share: float) -> None:
    """Multiply the picture by the grain of its surfaces, or by a share of it."""
    du, dv = np.float32(scene.grain[0]), np.float32(scene.grain[1])
    along = frame.x + np.where(frame.is_level, du, frame.depth + du)
    across = np.where(frame.is_level, frame.depth, frame.y) + dv
    footprint = frame.depth * np.float32(1 / frame.view.focal)
    footprint *= np.where(frame.is_level, 1 + np.float32(0.12) * frame.depth, np.float32(1))
    fine, coarse = textures.sample_twice(grain, along, across, footprint)
    gain = fine.astype(np.float32) * np.float32(1 / textures.MIDDLE)
    weight = np.where(frame.is_level, np.float32(0.55), np.float32(0.25))
    weight *= grain != Grain.PLAIN
    gain += (coarse.astype(np.float32) - textures.MIDDLE) * (weight / textures.MIDDLE)
    if share != 1:
        gain = 1 + (gain - 1) * np.float32(share)
    frame.rgb *= gain


def _apply_shadows(scene: Scene, outlines: Outlines, frame: Frame, look: Look) -> None:
    """Darken the ground where things stand and where they keep off the sun."""
    sun = sun_direction(scene)
    strong = max(look.sun) > 0.02
    cast = shadow_masks(scene, frame.view, outlines, strong)
    ambient = np.array(look.ambient)
    lit = ambient + np.array(look.sun) * sun[1]
    level = frame.is_level.astype(np.float32) * np.float32(1 / 255)
    if strong:
        mask = cast[0] * level
        for channel, loss in enumerate(1 - ambient / lit):
            frame.rgb[channel] *= 1 - mask * np.float32(loss)
    frame.rgb *= 1 - cast[1] * (level * np.float32(0.72))


def _polish_hood(frame: Frame) -> None:
    """Let the ego vehicle's hood mirror the sky where it curves away."""
    places = np.flatnonzero(frame.surface == Surface.EGO_VEHICLE)
    if not len(places):
        return
    column = places % frame.view.width
    top = np.full(frame.view.width, frame.view.height, np.int64)
    np.minimum.at(top, column, places // frame.view.width)
    depth = (places // frame.view.width - top[column]) / (0.1 * frame.view.height)
    shine = (0.75 + 1.5 / (1 + (depth * 5) ** 2)).astype(np.float32)
    frame.rgb.reshape(3, -1)[:, places] *= shine


def _paint_sky(scene: Scene, frame: Frame, look: Look) -> None:
    """Colour the sky's pixels: a gradient, clouds, and a glow around the sun."""
    view = frame.view
    places = np.flatnonzero(frame.surface == Surface.SKY)
    row, column = np.divmod(places, view.width)
    up = np.maximum((view.v0 - row) / view.focal, 0.0).astype(np.float32)
    side = ((column - view.u0) / view.focal).astype(np.float32)
    height = np.minimum(up * np.float32(2.2), 1)
    height *= 2 - height
    zenith, horizon = np.array([look.zenith, look.horizon], np.float32)
    colour = horizon[:, None] + (zenith - horizon)[:, None] * height
    if look.clouds:
        reach = 1 / (up + np.float32(0.1))
        shift = np.float32(scene.grain[0] % 6), np.float32(scene.grain[1] % 6)
        texture = textures.sample(
            Grain.BLOTCHES,
            side * reach * np.float32(0.5) + shift[0], reach * np.float32(0.5) + shift[1],
            reach * reach * np.float32(0.5 / view.focal),
        )  # fmt: skip
        cover = np.clip((texture.astype(np.float32) - (186 - 110 * look.clouds)) / 70, 0, 1)
        cover *= np.float32(0.85)
        bright = np.maximum(horizon, np.float32(1.05) * zenith) * np.float32(1.04)
        shade_ = 1 - np.float32(0.22 * look.clouds) * (texture.astype(np.float32) / 255)
        colour += (np.minimum(bright, 250)[:, None] * shade_ - colour) * cover
    sun = sun_direction(scene)
    if sun[2] > 0 and max(look.sun) > 0.2:
        distance = (side - np.float32(sun[0] / sun[2])) ** 2
        distance += (up - np.float32(sun[1] / sun[2])) ** 2
        glow = np.float32(90 * max(look.sun)) / (1 + 14 * distance)
        colour += glow * np.array([[1.0], [0.95], [0.8]], np.float32)
    frame.rgb.reshape(3, -1)[:, places] = colour
