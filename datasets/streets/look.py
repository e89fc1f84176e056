"""Drawing lots for light, weather and camera: all that changes a picture but not its labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from datasets.streets.dice import RGB, Dice

CONDITIONS = ("clear", "fog", "night", "rain", "snow")
GAME = "game"  # as a computer game draws a clear day
LOOKS = (*CONDITIONS, GAME)


@dataclass(frozen=True)
class Look:
    """Light, weather and camera of one picture.

    Attributes:
        sun: light of the sun on a surface that faces it, per channel.
        ambient: light of the sky, per channel.
        zenith: colour of the sky, sRGB 0..255.
        horizon: colour of the sky at the horizon.
        clouds: share of the sky that clouds cover, in [0, 1].
        haze: extinction per metre.
        haze_colour: what distance fades into.
        lamps: strength of artificial light, in [0, 1].
        wet: how much the road mirrors, in [0, 1].
        snow: share of level surfaces under snow, in [0, 1].
        streaks: strength of falling rain, in [0, 1].
        flakes: strength of falling snow, in [0, 1].
        drops: number of drops on the lens.
        exposure: factor per channel.
        contrast: 1 leaves it.
        saturation: 1 leaves it, 0 is grey.
        noise: standard deviation of the sensor's noise in grey values.
        grain: share of the surfaces' grain that shows, in [0, 1].
        seed: of everything that is drawn pixel by pixel.
    """

    sun: RGB
    ambient: RGB
    zenith: RGB
    horizon: RGB
    clouds: float
    haze: float
    haze_colour: RGB
    exposure: RGB
    seed: int
    lamps: float = 0.0
    wet: float = 0.0
    snow: float = 0.0
    streaks: float = 0.0
    flakes: float = 0.0
    drops: int = 0
    contrast: float = 1.0
    saturation: float = 1.0
    noise: float = 2.5
    grain: float = 1.0


def _scaled(colour: RGB, factor: float) -> RGB:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _mixed(a: RGB, b: RGB, share: float) -> RGB:
    red, green, blue = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return red, green, blue


def _white_balance(dice: Dice, brightness: float, spread: float) -> RGB:
    warmth = dice.between(-spread, spread)
    return brightness * (1 + warmth), brightness, brightness * (1 - warmth)


def sample_look(condition: str, dice: Dice) -> Look:
    """A look for one of ``LOOKS``."""
    sample = {
        **{"clear": _clear, "fog": _fog, "night": _night, "rain": _rain, "snow": _snow},
        GAME: _game,
    }
    return sample[condition](dice)


def _clear(dice: Dice) -> Look:
    strength = dice.between(0.35, 1.0) if dice.chance(0.8) else dice.between(0.05, 0.25)
    warmth = dice.between(0, 1)
    sky: RGB = _mixed((98, 150, 222), (142, 182, 228), dice.share())
    pale: RGB = _mixed((214, 228, 240), (240, 230, 212), warmth)
    grey: RGB = (196, 200, 206)
    dullness = max(0.0, 1 - 1.6 * strength)
    horizon = _mixed(pale, grey, dullness)
    return Look(
        sun=_scaled(_mixed((0.86, 0.83, 0.78), (0.94, 0.82, 0.62), warmth), strength),
        ambient=_scaled((0.97, 1.0, 1.06), 1.06 - 0.42 * strength),
        zenith=_mixed(sky, grey, dullness),
        horizon=horizon,
        clouds=dice.between(0.15, 0.75) if strength > 0.3 else dice.between(0.7, 1.0),
        haze=dice.between(0.0004, 0.0022),
        haze_colour=_scaled(horizon, 0.97),
        exposure=_white_balance(dice, dice.between(0.94, 1.14), 0.05),
        seed=dice.whole(0, 2**31),
        contrast=dice.between(0.98, 1.12),
        saturation=dice.between(0.9, 1.1),
        noise=dice.between(1.5, 3.0),
    )


def _overcast(dice: Dice, brightness: float, grey: RGB) -> Look:
    return Look(
        sun=(0.0, 0.0, 0.0),
        ambient=_scaled((0.95, 0.97, 1.0), brightness),
        zenith=_scaled(grey, 0.92),
        horizon=grey,
        clouds=1.0,
        haze=0.003,
        haze_colour=grey,
        exposure=_white_balance(dice, dice.between(0.92, 1.06), 0.03),
        seed=dice.whole(0, 2**31),
        noise=dice.between(2.0, 3.5),
    )


def _fog(dice: Dice) -> Look:
    grey = dice.tint((198, 201, 203), 0.07)
    # meteorological range = 3.9 / extinction: 60 to 200 m
    look = _overcast(dice, dice.between(0.85, 1.0), grey)
    return replace(
        look,
        zenith=grey,
        haze=3.9 / dice.between(60, 200),
        contrast=dice.between(0.9, 1.0),
        saturation=dice.between(0.75, 0.95),
    )


def _rain(dice: Dice) -> Look:
    grey = dice.tint((162, 168, 176), 0.12)
    return replace(
        _overcast(dice, dice.between(0.76, 0.94), grey),
        clouds=0.85,
        haze=dice.between(0.004, 0.011),
        wet=dice.between(0.5, 0.9),
        streaks=dice.between(0.45, 1.0),
        drops=dice.whole(5, 16),
        contrast=dice.between(0.92, 1.04),
        saturation=dice.between(0.72, 0.92),
        noise=dice.between(2.5, 4.5),
    )


def _snow(dice: Dice) -> Look:
    grey = dice.tint((206, 209, 214), 0.05)
    return replace(
        _overcast(dice, dice.between(0.84, 0.98), grey),
        haze=dice.between(0.005, 0.014),
        snow=dice.between(0.6, 1.0),
        flakes=dice.between(0.4, 1.0),
        saturation=dice.between(0.75, 0.95),
        noise=dice.between(2.0, 3.5),
    )


def _night(dice: Dice) -> Look:
    darkness = dice.between(0.1, 0.18)
    sky: RGB = _mixed((13, 15, 27), (36, 29, 27), dice.share())
    return Look(
        sun=(0.0, 0.0, 0.0),
        ambient=_scaled((0.92, 0.96, 1.16), darkness),
        zenith=_scaled(sky, 0.7),
        horizon=sky,
        clouds=dice.between(0.0, 0.5),
        haze=0.002,
        haze_colour=_scaled(sky, 0.9),
        exposure=_white_balance(dice, dice.between(0.95, 1.25), 0.08),
        seed=dice.whole(0, 2**31),
        lamps=dice.between(0.8, 1.0),
        contrast=1.0,
        saturation=dice.between(0.7, 0.95),
        noise=dice.between(5.0, 9.0),
    )


def _game(dice: Dice) -> Look:
    """Smooth surfaces under a low, warm sun, rich colours, hard contrast and no noise."""
    warmth = dice.between(0.3, 1)
    horizon: RGB = _mixed((236, 214, 178), (246, 190, 128), warmth)
    return Look(
        sun=_scaled(_mixed((1.1, 0.96, 0.7), (1.2, 0.84, 0.46), warmth), dice.between(0.8, 1.1)),
        ambient=_scaled((0.6, 0.74, 1.0), dice.between(0.55, 0.75)),
        zenith=_mixed((42, 104, 206), (66, 140, 214), dice.share()),
        horizon=horizon,
        clouds=dice.between(0.0, 0.45),
        haze=dice.between(0.003, 0.007),
        haze_colour=_scaled(horizon, 0.95),
        exposure=_white_balance(dice, dice.between(0.98, 1.12), 0.05),
        seed=dice.whole(0, 2**31),
        contrast=dice.between(1.15, 1.35),
        saturation=dice.between(1.3, 1.6),
        noise=0.0,
        grain=dice.between(0.15, 0.35),
    )
