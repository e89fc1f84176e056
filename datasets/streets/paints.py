"""What surfaces are: their Cityscapes label ids, their paints and the light that they give off."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from datasets.streets.textures import Grain


class Surface(IntEnum):
    """Label ids of Cityscapes for everything that a scene can show, and one for unknown things."""

    EGO_VEHICLE = 1
    STATIC = 4
    DYNAMIC = 5
    ROAD = 7
    SIDEWALK = 8
    BUILDING = 11
    WALL = 12
    FENCE = 13
    POLE = 17
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    TERRAIN = 22
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    TRUCK = 27
    BUS = 28
    TRAIN = 31
    MOTORCYCLE = 32
    BICYCLE = 33
    OBSTACLE = 40  # no id of Cityscapes


class Paint(IntEnum):
    """Colour of a face: one of its owner's four own colours, or a fixed one."""

    FIRST = 0
    SECOND = 1
    THIRD = 2
    FOURTH = 3
    GLASS = 4
    DARK_GLASS = 5
    LIT_GLASS = 6
    TYRE = 7
    RIM = 8
    BLACK = 9
    DARK_METAL = 10
    METAL = 11
    WHITE = 12
    HEADLIGHT = 13
    TAILLIGHT = 14
    STREET_LAMP = 15
    RED = 16
    BLUE = 17
    YELLOW = 18
    RED_LAMP = 19
    AMBER_LAMP = 20
    GREEN_LAMP = 21
    DISPLAY = 22
    TRUNK = 23
    MARKING = 24
    KERB = 25
    TRACK = 26
    SHOP = 27


OWN_PAINTS = 4

# sRGB by daylight; the owner's own paints are filled in for each thing
COLOURS = np.zeros((len(Paint), 3))
COLOURS[Paint.GLASS] = 74, 88, 98
COLOURS[Paint.DARK_GLASS] = 38, 46, 54
COLOURS[Paint.LIT_GLASS] = 86, 92, 94
COLOURS[Paint.TYRE] = 26, 26, 28
COLOURS[Paint.RIM] = 148, 150, 154
COLOURS[Paint.BLACK] = 24, 24, 26
COLOURS[Paint.DARK_METAL] = 62, 66, 68
COLOURS[Paint.METAL] = 134, 138, 140
COLOURS[Paint.WHITE] = 226, 226, 222
COLOURS[Paint.HEADLIGHT] = 236, 238, 230
COLOURS[Paint.TAILLIGHT] = 188, 26, 28
COLOURS[Paint.STREET_LAMP] = 214, 212, 200
COLOURS[Paint.RED] = 196, 32, 34
COLOURS[Paint.BLUE] = 34, 84, 170
COLOURS[Paint.YELLOW] = 232, 192, 44
COLOURS[Paint.RED_LAMP] = 255, 64, 48
COLOURS[Paint.AMBER_LAMP] = 255, 176, 40
COLOURS[Paint.GREEN_LAMP] = 60, 240, 140
COLOURS[Paint.DISPLAY] = 238, 160, 48
COLOURS[Paint.TRUNK] = 84, 68, 54
COLOURS[Paint.MARKING] = 214, 214, 208
COLOURS[Paint.KERB] = 166, 163, 156
COLOURS[Paint.TRACK] = 96, 88, 80
COLOURS[Paint.SHOP] = 98, 96, 88

# light given off at night, added to what the face reflects
GLOW = np.zeros_like(COLOURS)
GLOW[Paint.LIT_GLASS] = (138, 100, 54)
GLOW[Paint.HEADLIGHT] = (270, 262, 236)
GLOW[Paint.TAILLIGHT] = (240, 36, 26)
GLOW[Paint.STREET_LAMP] = (300, 250, 176)
GLOW[Paint.RED_LAMP] = (270, 48, 36)
GLOW[Paint.AMBER_LAMP] = (270, 170, 40)
GLOW[Paint.GREEN_LAMP] = (48, 250, 150)
GLOW[Paint.DISPLAY] = (240, 160, 50)
GLOW[Paint.SHOP] = (150, 130, 92)

# lamps also shine by day
DAY_GLOW = np.zeros_like(COLOURS)
DAY_GLOW[[Paint.RED_LAMP, Paint.AMBER_LAMP, Paint.GREEN_LAMP, Paint.DISPLAY]] = 70.0

# grain of the surfaces whose faces name none
DEFAULT_GRAIN = {
    Surface.ROAD: Grain.ASPHALT,
    Surface.SIDEWALK: Grain.PAVING,
    Surface.TERRAIN: Grain.GRASS,
    Surface.VEGETATION: Grain.LEAVES,
    Surface.BUILDING: Grain.PLASTER,
    Surface.WALL: Grain.STONE,
}
