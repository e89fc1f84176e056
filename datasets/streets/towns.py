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

# fmt: off
TRAIN_TOWNS = (
    Town(
        name="altbruck", rows=(OLD_PLASTER,), houses=COTTAGE, floors=(2, 4),
        facades=(_CREAM, _OCHRE, _ROSE, _PISTACHIO, _SAND), trims=(_WHITE, _CREAM),
        roofs=(_RED_TILE, _BROWN_TILE),
        asphalt=(96, 96, 100), paving=(160, 156, 150), soil=(98, 110, 56), leaves=(_OAK, _LIME),
        walls=(_STONE, _SAND), wall_grain=Grain.STONE, fences=("bars", "mesh"),
        fence_paint=(70, 78, 70), lamp=1,
        tram=((206, 170, 46), (60, 60, 66)), bus=((214, 196, 60), (90, 90, 96)),
        blocks=(0.72, 0.12, 0.16), trees=(("round", 3), ("broad", 2), ("bush", 1)),
        wide=0.2, tracks=0.25, bustle=1.2, bicycles=1.3,
    ),
    Town(
        name="corvane", rows=(GRAND_PLASTER, OLD_PLASTER), houses=COTTAGE, floors=(4, 6),
        facades=(_CREAM, _SAND, _PALE_GREY, _STONE), trims=(_WHITE, _PALE_GREY),
        roofs=(_SLATE, _LEAD),
        asphalt=(88, 90, 96), paving=(172, 168, 160), soil=(90, 104, 54), leaves=(_OAK, _OLIVE),
        walls=(_STONE,), wall_grain=Grain.STONE, fences=("bars",), fence_paint=(40, 46, 44),
        lamp=1,
        tram=((184, 40, 40), (226, 222, 214)), bus=((60, 130, 110), (230, 230, 224)),
        blocks=(0.8, 0.02, 0.18), trees=(("round", 2), ("broad", 4)),
        wide=0.55, tracks=0.3, bustle=1.5, bicycles=0.8,
    ),
    Town(
        name="dunmoor", rows=(BRICK_TERRACE,), houses=COTTAGE, floors=(2, 3),
        facades=(_BRICK_RED, _BRICK_BROWN, _BRICK_YELLOW), trims=(_WHITE, _CREAM),
        roofs=(_SLATE, _BROWN_TILE),
        asphalt=(104, 104, 104), paving=(150, 146, 142), soil=(84, 112, 54),
        leaves=(_LIME, _OAK, _BIRCH),
        walls=(_BRICK_RED, _BRICK_BROWN), wall_grain=Grain.BRICK, fences=("planks", "bars"),
        fence_paint=(96, 66, 44), lamp=0,
        tram=((40, 90, 150), _WHITE), bus=((176, 34, 38), (120, 26, 30)),
        blocks=(0.5, 0.34, 0.16), trees=(("round", 3), ("young", 2), ("bush", 2)),
        wide=0.15, tracks=0.03, bustle=0.9, bicycles=0.6,
    ),
    Town(
        name="eisfeld", rows=(MODERN_SLAB, OLD_PLASTER), houses=COTTAGE, floors=(3, 7),
        facades=(_PALE_GREY, _WHITE, _PALE_BLUE, _SALMON), trims=(_GREY, _WHITE),
        roofs=(_LEAD, _SLATE),
        asphalt=(92, 94, 98), paving=(166, 166, 164), soil=(106, 116, 60), leaves=(_BIRCH, _LIME),
        walls=(_CONCRETE,), wall_grain=Grain.PLASTER, fences=("mesh", "rail"),
        fence_paint=(120, 126, 128), lamp=0,
        tram=((226, 224, 216), (196, 40, 40)), bus=((224, 222, 214), (30, 110, 180)),
        blocks=(0.62, 0.08, 0.3), trees=(("young", 3), ("round", 2), ("poplar", 1)),
        wide=0.65, tracks=0.3, bustle=0.9, bicycles=1.0,
    ),
    Town(
        name="fjordby", rows=(TIMBER, MODERN_SLAB), houses=TIMBER, floors=(2, 4),
        facades=(_SALMON, _OCHRE, _WHITE, _PALE_BLUE, (146, 60, 48)), trims=(_WHITE,),
        roofs=(_SLATE, _BROWN_TILE),
        asphalt=(84, 86, 90), paving=(142, 142, 144), soil=(88, 108, 52), leaves=(_FIR, _BIRCH),
        walls=(_DARK_STONE, _STONE), wall_grain=Grain.STONE, fences=("planks", "rail"),
        fence_paint=(214, 210, 200), lamp=0,
        tram=((70, 130, 180), _WHITE), bus=((60, 120, 70), _WHITE),
        blocks=(0.42, 0.32, 0.26), trees=(("conifer", 4), ("round", 1), ("bush", 1)),
        wide=0.2, tracks=0.08, bustle=0.8, bicycles=1.2,
    ),
    Town(
        name="harrowgate", rows=(GLASS_OFFICE, WAREHOUSE), houses=COTTAGE, floors=(4, 9),
        facades=(_STEEL, _CONCRETE, _BRICK_BROWN, _GREY), trims=(_PALE_GREY, _STEEL),
        roofs=(_LEAD,),
        asphalt=(80, 82, 88), paving=(176, 174, 170), soil=(96, 106, 56), leaves=(_LIME, _OLIVE),
        walls=(_CONCRETE, _BRICK_BROWN), wall_grain=Grain.PLASTER, fences=("rail", "mesh"),
        fence_paint=(90, 96, 100), lamp=0,
        tram=((30, 90, 80), _PALE_GREY), bus=((176, 34, 38), _WHITE),
        blocks=(0.82, 0.0, 0.18), trees=(("young", 4), ("round", 2)),
        wide=0.75, tracks=0.2, bustle=1.5, bicycles=0.9,
    ),
    Town(
        name="lindhafen", rows=(WAREHOUSE, BRICK_TERRACE), houses=COTTAGE, floors=(3, 5),
        facades=(_BRICK_RED, _BRICK_BROWN, _SAND, _BRICK_YELLOW), trims=(_CREAM, _STONE),
        roofs=(_RED_TILE, _SLATE),
        asphalt=(98, 96, 94), paving=(146, 138, 130), soil=(102, 112, 60),
        leaves=(_OAK, _AUTUMN, _LIME),
        walls=(_BRICK_BROWN, _STONE), wall_grain=Grain.BRICK, fences=("bars", "planks"),
        fence_paint=(70, 60, 52), lamp=1,
        tram=((60, 110, 60), (230, 220, 190)), bus=((40, 90, 160), (226, 222, 212)),
        blocks=(0.66, 0.1, 0.24), trees=(("round", 2), ("broad", 2), ("poplar", 2)),
        wide=0.4, tracks=0.2, bustle=1.1, bicycles=1.6,
    ),
    Town(
        name="pinheira", rows=(OLD_PLASTER, MODERN_SLAB), houses=COTTAGE, floors=(2, 5),
        facades=(_WHITE, _CREAM, _OCHRE, _SALMON, _PALE_BLUE), trims=(_OCHRE, _PALE_BLUE, _WHITE),
        roofs=(_RED_TILE,),
        asphalt=(108, 106, 102), paving=(190, 182, 166), soil=(140, 130, 78),
        leaves=(_OLIVE, _FIR, _OAK),
        walls=(_WHITE, _SAND), wall_grain=Grain.PLASTER, fences=("bars", "mesh"),
        fence_paint=(60, 70, 80), lamp=1,
        tram=((224, 190, 60), _WHITE), bus=((226, 150, 40), _WHITE),
        blocks=(0.66, 0.16, 0.18), trees=(("round", 2), ("conifer", 2), ("bush", 2)),
        wide=0.3, tracks=0.15, bustle=1.3, bicycles=0.5,
    ),
)

VAL_TOWNS = (
    Town(
        name="marienfurt", rows=(OLD_PLASTER, GRAND_PLASTER), houses=COTTAGE, floors=(3, 5),
        facades=(_SAND, _PISTACHIO, _CREAM, _PALE_BLUE), trims=(_CREAM, _WHITE),
        roofs=(_BROWN_TILE, _SLATE),
        asphalt=(92, 94, 98), paving=(164, 160, 156), soil=(94, 108, 56), leaves=(_LIME, _OAK),
        walls=(_STONE, _CONCRETE), wall_grain=Grain.STONE, fences=("bars", "mesh"),
        fence_paint=(56, 66, 60), lamp=1,
        tram=((200, 60, 44), _WHITE), bus=((200, 180, 60), (80, 84, 90)),
        blocks=(0.68, 0.12, 0.2), trees=(("round", 3), ("broad", 2), ("young", 1)),
        wide=0.45, tracks=0.22, bustle=1.2, bicycles=1.2,
    ),
    Town(
        name="nordwick", rows=(BRICK_TERRACE, WAREHOUSE), houses=TIMBER, floors=(2, 4),
        facades=(_BRICK_YELLOW, _BRICK_RED, _PALE_GREY), trims=(_WHITE, _PALE_GREY),
        roofs=(_SLATE, _RED_TILE),
        asphalt=(100, 100, 102), paving=(154, 152, 148), soil=(88, 112, 58),
        leaves=(_BIRCH, _OAK, _FIR),
        walls=(_BRICK_BROWN, _DARK_STONE), wall_grain=Grain.BRICK,
        fences=("planks", "bars", "rail"), fence_paint=(104, 84, 62), lamp=0,
        tram=((50, 80, 150), _CREAM), bus=((190, 44, 40), _WHITE),
        blocks=(0.54, 0.26, 0.2), trees=(("round", 3), ("conifer", 1), ("bush", 2)),
        wide=0.25, tracks=0.12, bustle=1.0, bicycles=1.1,
    ),
    Town(
        name="vallenstein", rows=(MODERN_SLAB, GLASS_OFFICE), houses=COTTAGE, floors=(3, 8),
        facades=(_WHITE, _CONCRETE, _SALMON, _STEEL), trims=(_PALE_GREY, _GREY),
        roofs=(_LEAD, _SLATE),
        asphalt=(86, 88, 92), paving=(172, 170, 168), soil=(104, 114, 60),
        leaves=(_LIME, _OLIVE, _BIRCH),
        walls=(_CONCRETE, _STONE), wall_grain=Grain.PLASTER, fences=("mesh", "rail"),
        fence_paint=(110, 116, 120), lamp=0,
        tram=((224, 222, 214), (40, 110, 170)), bus=((226, 224, 216), (60, 130, 90)),
        blocks=(0.66, 0.06, 0.28), trees=(("young", 2), ("round", 2), ("poplar", 1)),
        wide=0.6, tracks=0.28, bustle=1.1, bicycles=1.0,
    ),
)

TEST_TOWNS = (
    Town(
        name="orlamuende", rows=(GRAND_PLASTER, WAREHOUSE), houses=COTTAGE, floors=(3, 6),
        facades=(_STONE, _CREAM, _BRICK_BROWN, _ROSE), trims=(_WHITE, _SAND),
        roofs=(_SLATE, _BROWN_TILE),
        asphalt=(94, 92, 94), paving=(158, 152, 144), soil=(100, 110, 58),
        leaves=(_OAK, _LIME, _AUTUMN),
        walls=(_STONE, _BRICK_BROWN), wall_grain=Grain.STONE, fences=("bars", "planks"),
        fence_paint=(48, 54, 56), lamp=1,
        tram=((180, 150, 40), _CREAM), bus=((60, 100, 160), _WHITE),
        blocks=(0.7, 0.1, 0.2), trees=(("broad", 3), ("round", 2), ("poplar", 1)),
        wide=0.4, tracks=0.25, bustle=1.3, bicycles=1.2,
    ),
    Town(
        name="sundvik", rows=(TIMBER, BRICK_TERRACE), houses=TIMBER, floors=(2, 3),
        facades=(_OCHRE, _WHITE, _BRICK_RED, _PALE_BLUE), trims=(_WHITE, _CREAM),
        roofs=(_BROWN_TILE, _SLATE),
        asphalt=(96, 98, 102), paving=(148, 148, 148), soil=(86, 106, 54),
        leaves=(_FIR, _BIRCH, _LIME),
        walls=(_DARK_STONE, _BRICK_RED), wall_grain=Grain.BRICK, fences=("planks", "mesh"),
        fence_paint=(150, 120, 84), lamp=0,
        tram=((60, 120, 150), _WHITE), bus=((70, 130, 80), _CREAM),
        blocks=(0.46, 0.3, 0.24), trees=(("conifer", 2), ("round", 2), ("bush", 2)),
        wide=0.2, tracks=0.08, bustle=0.9, bicycles=1.3,
    ),
    Town(
        name="tavormina", rows=(OLD_PLASTER, MODERN_SLAB), houses=COTTAGE, floors=(2, 6),
        facades=(_SALMON, _CREAM, _WHITE, _SAND), trims=(_WHITE, _OCHRE),
        roofs=(_RED_TILE, _LEAD),
        asphalt=(104, 102, 100), paving=(184, 176, 162), soil=(130, 124, 74),
        leaves=(_OLIVE, _OAK, _FIR),
        walls=(_SAND, _WHITE), wall_grain=Grain.PLASTER, fences=("bars", "rail"),
        fence_paint=(70, 72, 78), lamp=1,
        tram=((226, 200, 80), _WHITE), bus=((220, 130, 50), _WHITE),
        blocks=(0.7, 0.12, 0.18), trees=(("round", 3), ("conifer", 1), ("young", 1)),
        wide=0.4, tracks=0.2, bustle=1.4, bicycles=0.7,
    ),
)

# fmt: on

TOWNS = {"train": TRAIN_TOWNS, "val": VAL_TOWNS, "test": TEST_TOWNS}
