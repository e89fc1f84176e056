"""Names of scores on the command line: ``[MODIFIER+]NAME[@RULE]``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from uncertainty.combination import RULES
from uncertainty.score_functions import KINDS, MEMBERS, OF_LOGITS
from utils.types import HEADS

# What a modifier alone stands for, after it.
MODIFIERS = {"react": "abet", "dice": "abet", "odin": "msp"}
NEED_STATISTICS = ("react", "dice")
NEED_GRADIENTS = ("odin",)


@dataclass(frozen=True)
class ScoreName:
    """A score that exists: what it is read from, what it is, how members are combined.

    Attributes:
        modifier: a key of ``MODIFIERS``, or None for the plain forward pass.
        name: a key of ``KINDS``.
        rule: one of the rules of that kind; None where the score compares members or heads itself.
    """

    modifier: str | None
    name: str
    rule: str | None

    def __str__(self) -> str:
        """As typed, without a rule that is the default: ``react+abet``, ``msp@mean_logit``."""
        modifier = f"{self.modifier}+" if self.modifier else ""
        default = KINDS[self.name].rules[:1]
        rule = f"@{self.rule}" if self.rule and self.rule not in default else ""
        return f"{modifier}{self.name}{rule}"

    @property
    def needs_members(self) -> bool:
        """Whether there have to be members: an ensemble, samples of dropout or the like."""
        return self.rule == "deviation" or bool(KINDS[self.name].needs & MEMBERS)

    @property
    def needs_heads(self) -> bool:
        """Whether the network has to have a second head."""
        return bool(KINDS[self.name].needs & HEADS)

    @property
    def needs_temperature(self) -> bool:
        """Whether the network has to have a learned temperature."""
        return "temperature" in KINDS[self.name].needs

    @property
    def needs_statistics(self) -> frozenset[str]:
        """What of ``ScoreStatistics`` is read, such as ``{"sml", "react"}``; mostly nothing."""
        named = {self.name} if KINDS[self.name].statistics else set()
        return frozenset(named | {name for name in NEED_STATISTICS if name == self.modifier})

    @property
    def needs_logits(self) -> bool:
        """Whether it reads what a mean of softmaxes has lost: how large the logits are."""
        return KINDS[self.name].rules == OF_LOGITS

    @property
    def needs_more_than_probabilities(self) -> bool:
        """Whether it reads members, heads, temperatures, the size of logits or the network."""
        return (
            self.needs_members
            or self.needs_heads
            or self.needs_temperature
            or self.needs_logits
            or self.needs_network
        )

    @property
    def has_limits(self) -> bool:
        """Whether the score has a greatest value, where the least is 0."""
        return KINDS[self.name].highest is not None

    @property
    def needs_gradients(self) -> bool:
        """Whether gradients run back to the images, which takes memory and time."""
        return self.modifier in NEED_GRADIENTS

    @property
    def needs_network(self) -> bool:
        """Whether the network has to be at hand: logits from elsewhere are not enough."""
        return self.modifier is not None


def parse_score_name(text: str) -> ScoreName:
    """The score that a text names.

    Raises:
        ValueError: saying which part is wrong and what it may be.
    """
    body, at, rule = text.strip().partition("@")
    modifier, plus, name = body.rpartition("+")
    if not plus and name in MODIFIERS:
        modifier, plus, name = name, "+", MODIFIERS[name]
    if plus and modifier not in MODIFIERS:
        raise ValueError(f"{text!r}: " + _unknown("modifier of scores", modifier, MODIFIERS))
    if name not in KINDS:
        alone = () if plus else MODIFIERS
        raise ValueError(f"{text!r}: " + _unknown("score", name, [*KINDS, *alone]))
    return ScoreName(modifier or None, name, _rule(text, name, rule if at else None))


def split_names(text: str) -> list[str]:
    """The scores of a list with commas or spaces, in canonical form, each once.

    Raises:
        ValueError: if there is none, or as ``parse_score_name`` does.
    """
    parts = text.replace(",", " ").split()
    if not parts:
        raise ValueError(f"{text!r} names no score; choose from {', '.join((*KINDS, *MODIFIERS))}")
    return list(dict.fromkeys(str(parse_score_name(part)) for part in parts))


def _rule(text: str, name: str, rule: str | None) -> str | None:
    """The rule of a score, its default where none is typed.

    Raises:
        ValueError: if the score cannot be combined that way.
    """
    choices = KINDS[name].rules
    if rule is None:
        return choices[0] if choices else None
    if rule not in RULES:
        raise ValueError(f"{text!r}: " + _unknown("rule over members", rule, choices or RULES))
    if not choices:
        compared = "members" if KINDS[name].needs & MEMBERS else "heads"
        raise ValueError(f"{text!r}: {name} compares the {compared} itself and takes no rule")
    if rule not in choices:
        raise ValueError(
            f"{text!r}: the mean of softmaxes has lost what {name} reads, since the log of it has "
            f"logsumexp 0; choose a rule from {', '.join(choices)}"
        )
    return rule


def _unknown(what: str, text: str, known: Iterable[str]) -> str:
    """That nothing has this name, with the nearest that has one, or all."""
    choices = tuple(known)
    near = difflib.get_close_matches(text, choices, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(choices)}"
    return f"no {what} is called {text!r}; {hint}"
