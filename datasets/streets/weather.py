"""Weather, lamps and the camera, on a shaded picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets import textures
from datasets.streets.dice import Dice
from datasets.streets.look import Look
from datasets.streets.paints import Surface
from datasets.streets.scene import Scene
from datasets.streets.shading import FARTHEST, Frame
from datasets.streets.textures import Grain, Pixels


def develop(scene: Scene, frame: Frame, look: Look) -> NDArray[np.uint8]:
    """Add weather, artificial light and the camera to a picture: RGB (3, H, W)."""
    dice = Dice(look.seed)
    if look.snow:
        _lay_snow(frame, look, dice)
    if look.wet:
        _wet_ground(frame, look)
    if look.lamps:
        _light_lamps(scene, frame, look)
    _add_haze(frame, look)
    if look.flakes or look.streaks:
        _add_fall(frame, look, dice)
    if look.drops:
        _add_drops(frame, look, dice)
    return _expose(frame, look, dice)


def transmission(depth: Pixels, extinction: float) -> Pixels:
    """Share of light that reaches the camera, exp(-extinction depth), on a table of depths."""
    steps = np.exp(-extinction * np.arange(int(FARTHEST * 4) + 2) / 4).astype(np.float32)
    return steps.take((depth * np.float32(4)).astype(np.int32))


def _add_haze(frame: Frame, look: Look) -> None:
    """Fade into the haze's colour with depth (Koschmieder's law)."""
    share = transmission(frame.depth, look.haze)
    if look.haze < 0.003:  # the sky of a clear day is no haze
        share[frame.surface == Surface.SKY] = 1.0
    frame.rgb *= share
    for channel, colour in enumerate(look.haze_colour):
        frame.rgb[channel] += np.float32(colour) * (1 - share)


def _lay_snow(frame: Frame, look: Look, dice: Dice) -> None:
    """Cover level ground, less where wheels and feet go."""
    shift = np.float32(dice.between(0, 6))
    where = np.flatnonzero(frame.is_level)
    x, z = frame.x.ravel()[where], frame.depth.ravel()[where]
    texture = textures.sample(
        Grain.BLOTCHES,
        x * np.float32(0.25) + shift, z * np.float32(0.12) + shift,
        z * np.float32(0.3 / frame.view.focal),
    ).astype(np.float32)  # fmt: skip
    trodden = np.zeros(256, np.float32)
    trodden[[Surface.ROAD, Surface.SIDEWALK]] = 120, 30
    cover = texture + np.float32(150 * look.snow - 60) - trodden[frame.surface.ravel()[where]]
    cover = np.clip((cover - 90) * np.float32(1 / 50), 0, 0.94)
    flat = frame.rgb.reshape(3, -1)
    for channel, (white, light) in enumerate(zip((226, 231, 238), look.ambient, strict=True)):
        old = flat[channel, where]
        # shadows and grain stay visible through the snow
        fresh = np.float32(white * light) * (0.8 + np.float32(0.2 / 128) * texture)
        flat[channel, where] = old + (fresh - old) * cover


def _wet_ground(frame: Frame, look: Look) -> None:
    """Darken the ground and let it mirror what stands above the horizon."""
    view = frame.view
    horizon = min(max(int(view.v0), 1), view.height - 1)
    below = view.height - horizon
    rows = np.clip(horizon - 1 - np.arange(below) * 9 // 10, 0, horizon)
    mirror = np.ascontiguousarray(frame.rgb[:, rows])
    size = (max(1, view.width // 128) * 2 + 1, max(3, view.height // 10) | 1)
    puddles = textures.sample(
        Grain.BLOTCHES,
        frame.x[horizon:] * np.float32(0.2), frame.depth[horizon:] * np.float32(0.1),
        frame.depth[horizon:] * np.float32(0.3 / view.focal),
    ).astype(np.float32)  # fmt: skip
    # flat views mirror more: Fresnel, roughly
    share = np.clip((puddles - 70) / 150, 0.12, 0.75) * np.float32(look.wet)
    share *= np.clip(frame.depth[horizon:] * np.float32(0.07), 0.25, 1) * frame.is_level[horizon:]
    soaked = 1 - np.float32(0.38 * look.wet) * frame.is_level[horizon:]
    for channel in range(3):
        blurred = cv2.blur(np.clip(mirror[channel], 0, 255).astype(np.uint8), size)
        part = frame.rgb[channel, horizon:]
        part *= soaked
        part += (blurred * np.float32(0.9) - part) * share


def _light_lamps(scene: Scene, frame: Frame, look: Look) -> None:
    """Street lamps and the own headlights light what is near them; bright lights bloom."""
    strength = np.float32(look.lamps)
    light = np.zeros_like(frame.depth)
    curve = np.float32(scene.bend)
    for thing in scene.things:
        if thing.model != "street_lamp" or not 0 < thing.z < 75:
            continue
        lamp_height = 7.2 if thing.options[0] == 0 else 4.0
        reach = 1.4 if thing.options[0] == 0 else 0.0
        x = thing.x + thing.scale[0] * reach + curve * thing.z**2 - scene.camera.x
        distance = (frame.x - np.float32(x)) ** 2
        distance += (frame.depth - np.float32(thing.z)) ** 2
        distance += (frame.y - np.float32(lamp_height)) ** 2 + 4
        light += np.float32(0.42 * lamp_height**1.5) / distance
    warm = light * strength
    ahead = np.clip(1.25 - np.abs(frame.x) / (0.22 * frame.depth + 1.5), 0, 1)
    beam = ahead * np.clip(1.15 - frame.depth / 42, 0, 1) * np.clip(1.1 - frame.y / 2.6, 0.08, 1)
    beam *= frame.surface != Surface.EGO_VEHICLE
    beam *= np.float32(0.55) * strength
    is_sky = frame.surface == Surface.SKY
    warm[is_sky] = beam[is_sky] = 0
    own = np.array(look.ambient, np.float32)
    glow = frame.glow
    assert glow is not None
    scale = max(1, frame.view.height // 128)
    # lit windows are too weak to bloom
    small = np.clip((glow - 150) * np.float32(2), 0, 255).astype(np.uint8)
    bloom = cv2.blur(small, (4 * scale + 1, 4 * scale + 1)).astype(np.float32) * np.float32(0.9)
    for size in (12, 30):
        k = size * scale + 1
        bloom += cv2.blur(cv2.blur(small, (k, k)), (k, k)).astype(np.float32) * np.float32(1.2)
    for channel, (tint, white) in enumerate(((1.0, 1.0), (0.78, 0.98), (0.48, 0.92))):
        reflected = (frame.rgb[channel] - glow[..., channel] * strength) / own[channel]
        np.maximum(reflected, 0, out=reflected)
        frame.rgb[channel] += reflected * (warm * np.float32(tint) + beam * np.float32(white))
        frame.rgb[channel] += bloom[..., channel] * strength


def _add_fall(frame: Frame, look: Look, dice: Dice) -> None:
    """Falling rain or snow, near and far."""
    shape = frame.depth.shape
    scale = max(1, frame.view.height // 128)
    kind, strength = ("flakes", look.flakes) if look.flakes else ("streaks", look.streaks)
    for layer, opacity in ((0, 0.75), (1, 0.55)):
        size = (-(-shape[0] // scale), -(-shape[1] // scale))
        veil = textures.window(textures.fall(kind, layer), dice, size)
        if scale > 1:
            veil = np.repeat(np.repeat(veil, scale, 0), scale, 1)[: shape[0], : shape[1]]
            veil = cv2.blur(np.ascontiguousarray(veil), (scale, scale))
        share = veil.astype(np.float32) * np.float32(opacity * strength / 255)
        bright = 246.0 if kind == "flakes" else 205.0
        frame.rgb += (np.float32(bright) - frame.rgb) * share


def _add_drops(frame: Frame, look: Look, dice: Dice) -> None:
    """Drops on the windscreen, each a small, upturned and blurred view of the scene."""
    height, width = frame.depth.shape
    for _ in range(look.drops):
        radius = int(height * dice.between(0.015, 0.05)) + 1
        row, column = dice.whole(0, height - 1), dice.whole(0, width - 1)
        y0, y1 = max(row - radius, 0), min(row + radius + 1, height)
        x0, x1 = max(column - radius, 0), min(column + radius + 1, width)
        dy = (np.arange(y0, y1) - row)[:, None] / radius
        dx = (np.arange(x0, x1) - column) / radius
        inside = np.clip((1 - dx * dx - dy * dy) * 3, 0, 0.85).astype(np.float32)
        patch = frame.rgb[:, y0:y1, x0:x1]
        mean = patch.mean((1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
        lens = patch[:, ::-1] * np.float32(0.35) + mean * np.float32(0.65)
        lens += np.float32(22) * dy.astype(np.float32)
        patch += (lens - patch) * inside


def _expose(frame: Frame, look: Look, dice: Dice) -> NDArray[np.uint8]:
    """Saturation, exposure, contrast, vignetting and noise of the camera."""
    rgb = frame.rgb
    height, width = frame.depth.shape
    if look.saturation != 1:
        grey = (rgb[0] * np.float32(0.3) + rgb[1] * np.float32(0.59)) + rgb[2] * np.float32(0.11)
        rgb *= np.float32(look.saturation)
        rgb += grey * np.float32(1 - look.saturation)
    down = ((np.arange(height, dtype=np.float32) / height - np.float32(0.5)) ** 2)[:, None]
    across = (np.arange(width, dtype=np.float32) / width - np.float32(0.5)) ** 2
    vignette = 1 - np.float32(0.3) * (down + across)
    for channel, gain in enumerate(look.exposure):
        plane = rgb[channel]
        plane *= vignette * np.float32(gain * look.contrast)
        plane += np.float32(112 * (1 - look.contrast))
        grains = textures.window(textures.noise(), dice, (height, width))
        plane += grains * np.float32(look.noise / textures.NOISE_UNIT)
    np.clip(rgb, 0, 255, out=rgb)
    rgb += np.float32(0.5)
    return rgb.astype(np.uint8)
