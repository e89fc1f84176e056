"""Scores by name: maps of uncertainty from a prediction, higher is more uncertain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Literal

from torch import Tensor

from uncertainty.combination import RULES, ScoreFunction, member_count
from uncertainty.modifiers import ClippedActivations, PerturbedImages, SparseWeights
from uncertainty.score_functions import KINDS, MEMBERS, ScoreKind, one
from uncertainty.score_names import ScoreName, parse_score_name
from uncertainty.statistics import ScoreStatistics
from utils.types import ForwardVariant, Prediction, Score

PUBLISHED = tuple(name for name, kind in KINDS.items() if kind.published)
RUNS = {"react": ClippedActivations, "dice": SparseWeights, "odin": PerturbedImages}


@dataclass(frozen=True)
class ScoreSettings:
    """What scores have in common.

    Attributes:
        norm: "paper" gives every score in the scale of AbeT's published code.
        epsilon: size of odin's step, of images in [0, 1].
        std: that normalised images were divided by, one for each channel; odin reads it.
        statistics: of data with known classes; sml, react and dice read them.
        react_percentile: of the activations, where react cuts them.
        dice_percentile: of the contributions, above which dice keeps weights.
    """

    norm: Literal["none", "paper"] = "none"
    epsilon: float = 0.002
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    statistics: ScoreStatistics | None = None
    react_percentile: float = 90.0
    dice_percentile: float = 90.0


PLAIN = ScoreSettings()


def build_score(name: str | ScoreName, settings: ScoreSettings = PLAIN) -> Score:
    """The score of a name.

    Scores of one modifier and the same settings have equal forward variants.

    Raises:
        ValueError: if the name is unknown, statistics are missing, or the score has no published
            form and the settings ask for it.
    """
    parsed = parse_score_name(name) if isinstance(name, str) else name
    _refuse_missing_statistics(parsed, settings)
    kind = KINDS[parsed.name]
    function = _function(parsed, kind, settings)
    score = Score(
        str(parsed),
        function,
        variant=_variant(parsed, settings),
        needs=kind.needs | (MEMBERS if parsed.needs_members else frozenset()),
        highest=_highest(parsed, kind),
        published=_published(parsed, kind, function),
    )
    if settings.norm == "none":
        return score
    if score.published is None:
        raise ValueError(
            f"{parsed} has no published form; in the paper's scale there are "
            f"{', '.join(PUBLISHED)}, with rules that take a mean"
        )
    return replace(score, function=score.published, highest=one if kind.highest else None)


def describe_scores() -> dict[str, str]:
    """One line for each score, modifier and rule, by the form in which it is typed."""
    described = {name: kind.function.__doc__ for name, kind in KINDS.items()}
    described |= {f"{modifier}+SCORE": run.__doc__ for modifier, run in RUNS.items()}
    described |= {f"SCORE@{name}": rule.__doc__ for name, rule in RULES.items()}
    return {name: (text or "").splitlines()[0] for name, text in described.items()}


def _refuse_missing_statistics(parsed: ScoreName, settings: ScoreSettings) -> None:
    """Check that the settings have the statistics that a score reads.

    Raises:
        ValueError: naming what is missing and how to make it.
    """
    statistics = settings.statistics
    if not parsed.needs_statistics:
        return
    if statistics is None:
        raise ValueError(
            f"{parsed} needs statistics of data with known classes: make them with --fit_score "
            f"{parsed}"
        )
    modifiers = parsed.needs_statistics & RUNS.keys()
    if modifiers and not statistics.heads:
        raise ValueError(
            f"{parsed} needs statistics of what the class head sees, and these have only those of "
            "logits: make them again from the network with --fit_score"
        )


def _function(parsed: ScoreName, kind: ScoreKind, settings: ScoreSettings) -> ScoreFunction:
    """The score of a whole prediction, under the docstring of its kind."""
    if parsed.rule is None:
        return kind.function
    rule = RULES[parsed.rule]

    @wraps(kind.function)
    def combined(prediction: Prediction) -> Tensor:
        if not kind.statistics:
            return rule(lambda _: kind.function, prediction)
        assert settings.statistics is not None, "refused before"
        moments = partial(settings.statistics.moments, members=member_count(prediction))
        return rule(lambda place: partial(kind.function, moments=moments(place)), prediction)

    return combined


def _published(parsed: ScoreName, kind: ScoreKind, function: ScoreFunction) -> ScoreFunction | None:
    """The score in the published scale; a deviation has none."""
    published = kind.published
    if published is None or parsed.rule == "deviation":
        return None
    return lambda prediction: published(function(prediction), prediction.logits.shape[1])


def _highest(parsed: ScoreName, kind: ScoreKind) -> Callable[[int], float] | None:
    """The greatest value; values in [0, h] deviate by at most h / 2."""
    highest = kind.highest
    if highest is None or parsed.rule != "deviation":
        return highest
    return lambda num_classes: highest(num_classes) / 2


def _variant(parsed: ScoreName, settings: ScoreSettings) -> ForwardVariant | None:
    """The forward pass that a score is read from."""
    statistics = settings.statistics
    if parsed.modifier is None:
        return None
    if parsed.modifier == "odin":
        run = PerturbedImages(settings.epsilon, tuple(settings.std))
        return ForwardVariant(f"odin-{settings.epsilon:g}", run)
    assert statistics is not None, "refused before"
    if parsed.modifier == "react":
        return ForwardVariant("react", ClippedActivations(statistics, settings.react_percentile))
    return ForwardVariant("dice", SparseWeights(statistics, settings.dice_percentile))


# Those that need nothing but a prediction, by name; ``build_score`` makes the others.
SCORES: dict[str, Score] = {
    name: build_score(name) for name, kind in KINDS.items() if not kind.statistics
}
