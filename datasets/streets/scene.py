"""The description of a scene: what stands where. How it looks is the business of rendering."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets.streets.dice import RGB
from datasets.streets.towns import Town

KERB = 0.12  # metres from the road up to the sidewalk


@dataclass(frozen=True)
class Camera:
    """A camera in a car; shares are of the image's width or height."""

    x: float  # metres from the middle of the road
    height: float  # metres
    focal: float  # focal length over image width
    centre: float  # column of the vanishing point over image width
    horizon: float  # row of the horizon over image height


@dataclass(frozen=True)
class Street:
    """The cross-section of the street, in metres from its middle, and its crossing."""

    lanes: int  # on each side
    lane: float  # width of a lane
    edges: tuple[float, float]  # left and right edge of the road, both positive
    sidewalks: tuple[float, float]  # widths
    verges: tuple[float, float]  # widths of the grass between kerb and sidewalk
    parking: tuple[bool, bool]
    has_tracks: bool
    crossing: tuple[float, float] | None  # near and far edge of the street that crosses
    asphalt: RGB
    paving: RGB
    soil: RGB
    wear: float  # 0: fresh markings, 1: faded ones
    patches: tuple[tuple[float, float, float, float, float], ...]  # x, z, width, length, tone

    def edge(self, side: int) -> float:
        """Distance of the road's edge on a side (-1: left, 1: right)."""
        return self.edges[side > 0]

    def border(self, side: int) -> float:
        """Distance at which the sidewalk of a side ends."""
        return self.edges[side > 0] + self.verges[side > 0] + self.sidewalks[side > 0]

    def walk(self, side: int) -> float:
        """Distance at which the sidewalk of a side begins."""
        return self.edges[side > 0] + self.verges[side > 0]


@dataclass(frozen=True)
class Thing:
    """A model that stands somewhere.

    Attributes:
        model: name of the model.
        options: what the model's function takes.
        x: metres to the right of the road's middle.
        z: metres ahead of the camera.
        y: metres above the road.
        turn: angle to the left, in quarters of a full turn; at 0 it looks away from the camera.
        scale: factors along its own x, y and z.
        colours: its own paints.
        nearness: metres by which it is drawn as if it were nearer than its origin.
        casts: whether it throws a shadow and darkens the ground that it stands on.
    """

    model: str
    options: tuple
    x: float
    z: float
    y: float = 0.0
    turn: float = 0.0
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    colours: tuple[RGB, ...] = ()
    nearness: float = 0.0
    casts: bool = True


@dataclass(frozen=True)
class Scene:
    """All that a picture shows, without weather and time of day."""

    town: Town
    camera: Camera
    street: Street
    bend: float  # metres to the right per squared metre ahead
    sun: tuple[float, float]  # azimuth (0: behind the camera, positive: right) and elevation, rad
    hood: float  # height of the ego vehicle's hood over image height, 0 where it is not seen
    grain: tuple[float, float]  # metres by which surface grain is shifted
    label_seed: int  # of the noise at the borders of labels
    things: tuple[Thing, ...] = field(repr=False)
