"""The virtual towns: architecture, palette, plants and habits. No town is in two splits."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.streets.buildings import Architecture
from datasets.streets.dice import RGB
from datasets.streets.textures import Grain

OLD_PLASTER = Architecture(3.3, 2.5, (1.05, 1.75), 0.14, "pitched", Grain.PLASTER, 0.45, 0.1)
GRAND_PLASTER = Architecture(3.7, 2.7, (1.2, 2.1), 0.2, "mansard", Grain.PLASTER, 0.6, 0.35)
BRICK_TERRACE = Architecture(3.0, 2.4, (1.1, 1.5), 0.12, "pitched", Grain.BRICK, 0.3, 0.0)
WAREHOUSE = Architecture(3.9, 3.1, (1.9, 2.2), 0.1, "flat", Grain.BRICK, 0.35, 0.0)
MODERN_SLAB = Architecture(3.0, 3.0, (2.1, 1.5), 0.0, "flat", Grain.PLASTER, 0.3, 0.6)
GLASS_OFFICE = Architecture(3.5, 1.7, (1.5, 2.6), 0.0, "flat", Grain.PLAIN, 0.25, 0.0)
COTTAGE = Architecture(2.8, 2.8, (1.3, 1.25), 0.1, "pitched", Grain.PLASTER, 0.0, 0.0)
TIMBER = Architecture(2.9, 2.6, (1.1, 1.35), 0.13, "pitched", Grain.PLANKS, 0.1, 0.0)


@dataclass(frozen=True)
class Town:
    """What the scenes of one town have in common.

    Attributes:
        name: also the name of its folder in the Cityscapes layout.
        rows: architectures of the buildings in closed rows.
        houses: architecture of detached houses.
        floors: least and most storeys of a row.
        facades: colours of walls, and so on for the other palettes.
        blocks: weights of "row", "house" and "park" along a street.
        trees: weights of the kinds of tree.
        fences: styles of fence.
        wall_grain: grain of free-standing walls.
        lamp: style of the street lamps.
        wide: share of streets with two lanes on each side.
        tracks: share of streets with tram tracks.
        bustle: factor on the number of people.
        bicycles: factor on the number of bicycles.
    """

    name: str
    rows: tuple[Architecture, ...]
    houses: Architecture
    floors: tuple[int, int]
    facades: tuple[RGB, ...]
    trims: tuple[RGB, ...]
    roofs: tuple[RGB, ...]
    asphalt: RGB
    paving: RGB
    soil: RGB
    leaves: tuple[RGB, ...]
    walls: tuple[RGB, ...]
    fence_paint: RGB
    tram: tuple[RGB, RGB]
    bus: tuple[RGB, RGB]
    blocks: tuple[float, float, float]
    trees: tuple[tuple[str, float], ...]
    fences: tuple[str, ...]
    wall_grain: Grain
    lamp: int
    wide: float
    tracks: float
    bustle: float
    bicycles: float


_CREAM, _SAND, _OCHRE = (224, 210, 178), (206, 184, 146), (204, 160, 92)
_ROSE, _SALMON, _PISTACHIO = (206, 156, 142), (216, 138, 108), (172, 184, 148)
_PALE_BLUE, _GREY, _PALE_GREY = (160, 178, 190), (146, 146, 144), (196, 196, 192)
_BRICK_RED, _BRICK_BROWN, _BRICK_YELLOW = (150, 78, 60), (120, 76, 58), (186, 156, 108)
_CONCRETE, _STEEL, _WHITE = (168, 166, 160), (116, 130, 142), (232, 230, 222)
_STONE, _DARK_STONE, _RED_TILE = (166, 156, 138), (112, 104, 96), (158, 78, 54)
_BROWN_TILE, _SLATE, _LEAD = (112, 72, 54), (78, 82, 92), (104, 112, 116)
_OAK, _LIME, _BIRCH = (74, 98, 40), (96, 122, 44), (120, 136, 62)
_FIR, _AUTUMN, _OLIVE = (48, 78, 48), (158, 112, 40), (108, 116, 70)

TRAIN_TOWNS = (
    Town("altbruck", (OLD_PLASTER,), COTTAGE, (2, 4), (_CREAM, _OCHRE, _ROSE, _PISTACHIO, _SAND),
         (_WHITE, _CREAM), (_RED_TILE, _BROWN_TILE), (96, 96, 100), (160, 156, 150), (98, 110, 56),
         (_OAK, _LIME), (_STONE, _SAND), (70, 78, 70), ((206, 170, 46), (60, 60, 66)),
         ((214, 196, 60), (90, 90, 96)), (0.72, 0.12, 0.16), (("round", 3), ("broad", 2), ("bush", 1)),
         ("bars", "mesh"), Grain.STONE, 1, 0.2, 0.25, 1.2, 1.3),
    Town("corvane", (GRAND_PLASTER, OLD_PLASTER), COTTAGE, (4, 6), (_CREAM, _SAND, _PALE_GREY, _STONE),
         (_WHITE, _PALE_GREY), (_SLATE, _LEAD), (88, 90, 96), (172, 168, 160), (90, 104, 54),
         (_OAK, _OLIVE), (_STONE,), (40, 46, 44), ((184, 40, 40), (226, 222, 214)),
         ((60, 130, 110), (230, 230, 224)), (0.8, 0.02, 0.18), (("round", 2), ("broad", 4)),
         ("bars",), Grain.STONE, 1, 0.55, 0.3, 1.5, 0.8),
    Town("dunmoor", (BRICK_TERRACE,), COTTAGE, (2, 3), (_BRICK_RED, _BRICK_BROWN, _BRICK_YELLOW),
         (_WHITE, _CREAM), (_SLATE, _BROWN_TILE), (104, 104, 104), (150, 146, 142), (84, 112, 54),
         (_LIME, _OAK, _BIRCH), (_BRICK_RED, _BRICK_BROWN), (96, 66, 44), ((40, 90, 150), _WHITE),
         ((176, 34, 38), (120, 26, 30)), (0.5, 0.34, 0.16), (("round", 3), ("young", 2), ("bush", 2)),
         ("planks", "bars"), Grain.BRICK, 0, 0.15, 0.03, 0.9, 0.6),
    Town("eisfeld", (MODERN_SLAB, OLD_PLASTER), COTTAGE, (3, 7), (_PALE_GREY, _WHITE, _PALE_BLUE, _SALMON),
         (_GREY, _WHITE), (_LEAD, _SLATE), (92, 94, 98), (166, 166, 164), (106, 116, 60),
         (_BIRCH, _LIME), (_CONCRETE,), (120, 126, 128), ((226, 224, 216), (196, 40, 40)),
         ((224, 222, 214), (30, 110, 180)), (0.62, 0.08, 0.3), (("young", 3), ("round", 2), ("poplar", 1)),
         ("mesh", "rail"), Grain.PLASTER, 0, 0.65, 0.3, 0.9, 1.0),
    Town("fjordby", (TIMBER, MODERN_SLAB), TIMBER, (2, 4), (_SALMON, _OCHRE, _WHITE, _PALE_BLUE, (146, 60, 48)),
         (_WHITE,), (_SLATE, _BROWN_TILE), (84, 86, 90), (142, 142, 144), (88, 108, 52),
         (_FIR, _BIRCH), (_DARK_STONE, _STONE), (214, 210, 200), ((70, 130, 180), _WHITE),
         ((60, 120, 70), _WHITE), (0.42, 0.32, 0.26), (("conifer", 4), ("round", 1), ("bush", 1)),
         ("planks", "rail"), Grain.STONE, 0, 0.2, 0.08, 0.8, 1.2),
    Town("harrowgate", (GLASS_OFFICE, WAREHOUSE), COTTAGE, (4, 9), (_STEEL, _CONCRETE, _BRICK_BROWN, _GREY),
         (_PALE_GREY, _STEEL), (_LEAD,), (80, 82, 88), (176, 174, 170), (96, 106, 56),
         (_LIME, _OLIVE), (_CONCRETE, _BRICK_BROWN), (90, 96, 100), ((30, 90, 80), _PALE_GREY),
         ((176, 34, 38), _WHITE), (0.82, 0.0, 0.18), (("young", 4), ("round", 2)),
         ("rail", "mesh"), Grain.PLASTER, 0, 0.75, 0.2, 1.5, 0.9),
    Town("lindhafen", (WAREHOUSE, BRICK_TERRACE), COTTAGE, (3, 5), (_BRICK_RED, _BRICK_BROWN, _SAND, _BRICK_YELLOW),
         (_CREAM, _STONE), (_RED_TILE, _SLATE), (98, 96, 94), (146, 138, 130), (102, 112, 60),
         (_OAK, _AUTUMN, _LIME), (_BRICK_BROWN, _STONE), (70, 60, 52), ((60, 110, 60), (230, 220, 190)),
         ((40, 90, 160), (226, 222, 212)), (0.66, 0.1, 0.24), (("round", 2), ("broad", 2), ("poplar", 2)),
         ("bars", "planks"), Grain.BRICK, 1, 0.4, 0.2, 1.1, 1.6),
    Town("pinheira", (OLD_PLASTER, MODERN_SLAB), COTTAGE, (2, 5), (_WHITE, _CREAM, _OCHRE, _SALMON, _PALE_BLUE),
         (_OCHRE, _PALE_BLUE, _WHITE), (_RED_TILE,), (108, 106, 102), (190, 182, 166), (140, 130, 78),
         (_OLIVE, _FIR, _OAK), (_WHITE, _SAND), (60, 70, 80), ((224, 190, 60), _WHITE),
         ((226, 150, 40), _WHITE), (0.66, 0.16, 0.18), (("round", 2), ("conifer", 2), ("bush", 2)),
         ("bars", "mesh"), Grain.PLASTER, 1, 0.3, 0.15, 1.3, 0.5),
)  # fmt: skip

VAL_TOWNS = (
    Town("marienfurt", (OLD_PLASTER, GRAND_PLASTER), COTTAGE, (3, 5), (_SAND, _PISTACHIO, _CREAM, _PALE_BLUE),
         (_CREAM, _WHITE), (_BROWN_TILE, _SLATE), (92, 94, 98), (164, 160, 156), (94, 108, 56),
         (_LIME, _OAK), (_STONE, _CONCRETE), (56, 66, 60), ((200, 60, 44), _WHITE),
         ((200, 180, 60), (80, 84, 90)), (0.68, 0.12, 0.2), (("round", 3), ("broad", 2), ("young", 1)),
         ("bars", "mesh"), Grain.STONE, 1, 0.45, 0.22, 1.2, 1.2),
    Town("nordwick", (BRICK_TERRACE, WAREHOUSE), TIMBER, (2, 4), (_BRICK_YELLOW, _BRICK_RED, _PALE_GREY),
         (_WHITE, _PALE_GREY), (_SLATE, _RED_TILE), (100, 100, 102), (154, 152, 148), (88, 112, 58),
         (_BIRCH, _OAK, _FIR), (_BRICK_BROWN, _DARK_STONE), (104, 84, 62), ((50, 80, 150), _CREAM),
         ((190, 44, 40), _WHITE), (0.54, 0.26, 0.2), (("round", 3), ("conifer", 1), ("bush", 2)),
         ("planks", "bars", "rail"), Grain.BRICK, 0, 0.25, 0.12, 1.0, 1.1),
    Town("vallenstein", (MODERN_SLAB, GLASS_OFFICE), COTTAGE, (3, 8), (_WHITE, _CONCRETE, _SALMON, _STEEL),
         (_PALE_GREY, _GREY), (_LEAD, _SLATE), (86, 88, 92), (172, 170, 168), (104, 114, 60),
         (_LIME, _OLIVE, _BIRCH), (_CONCRETE, _STONE), (110, 116, 120), ((224, 222, 214), (40, 110, 170)),
         ((226, 224, 216), (60, 130, 90)), (0.66, 0.06, 0.28), (("young", 2), ("round", 2), ("poplar", 1)),
         ("mesh", "rail"), Grain.PLASTER, 0, 0.6, 0.28, 1.1, 1.0),
)  # fmt: skip

TEST_TOWNS = (
    Town("orlamuende", (GRAND_PLASTER, WAREHOUSE), COTTAGE, (3, 6), (_STONE, _CREAM, _BRICK_BROWN, _ROSE),
         (_WHITE, _SAND), (_SLATE, _BROWN_TILE), (94, 92, 94), (158, 152, 144), (100, 110, 58),
         (_OAK, _LIME, _AUTUMN), (_STONE, _BRICK_BROWN), (48, 54, 56), ((180, 150, 40), _CREAM),
         ((60, 100, 160), _WHITE), (0.7, 0.1, 0.2), (("broad", 3), ("round", 2), ("poplar", 1)),
         ("bars", "planks"), Grain.STONE, 1, 0.4, 0.25, 1.3, 1.2),
    Town("sundvik", (TIMBER, BRICK_TERRACE), TIMBER, (2, 3), (_OCHRE, _WHITE, _BRICK_RED, _PALE_BLUE),
         (_WHITE, _CREAM), (_BROWN_TILE, _SLATE), (96, 98, 102), (148, 148, 148), (86, 106, 54),
         (_FIR, _BIRCH, _LIME), (_DARK_STONE, _BRICK_RED), (150, 120, 84), ((60, 120, 150), _WHITE),
         ((70, 130, 80), _CREAM), (0.46, 0.3, 0.24), (("conifer", 2), ("round", 2), ("bush", 2)),
         ("planks", "mesh"), Grain.BRICK, 0, 0.2, 0.08, 0.9, 1.3),
    Town("tavormina", (OLD_PLASTER, MODERN_SLAB), COTTAGE, (2, 6), (_SALMON, _CREAM, _WHITE, _SAND),
         (_WHITE, _OCHRE), (_RED_TILE, _LEAD), (104, 102, 100), (184, 176, 162), (130, 124, 74),
         (_OLIVE, _OAK, _FIR), (_SAND, _WHITE), (70, 72, 78), ((226, 200, 80), _WHITE),
         ((220, 130, 50), _WHITE), (0.7, 0.12, 0.18), (("round", 3), ("conifer", 1), ("young", 1)),
         ("bars", "rail"), Grain.PLASTER, 1, 0.4, 0.2, 1.4, 0.7),
)  # fmt: skip

TOWNS = {"train": TRAIN_TOWNS, "val": VAL_TOWNS, "test": TEST_TOWNS}
