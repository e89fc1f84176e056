"""The fifteen common corruptions of ImageNet-C at five severities, as torch operations.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. Parameters, the rule for images of other sizes and all deviations are in
``docs/corruptions.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datasets.appearance import Appearance
from datasets.corruptions.blur import BLUR
from datasets.corruptions.digital import DIGITAL
from datasets.corruptions.filters import to_bytes, to_float
from datasets.corruptions.kind import SEVERITIES, CorruptionKind
from datasets.corruptions.noise import NOISE
from datasets.corruptions.seeding import seeded_generator
from datasets.corruptions.weather import WEATHER
from datasets.items import did_you_mean

CORRUPTIONS: dict[str, CorruptionKind] = NOISE | BLUR | WEATHER | DIGITAL


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity; what it does depends on the seed and the image's id alone.

    Attributes:
        kind: a key of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of everything random.
    """

    kind: str
    severity: int
    seed: int

    @property
    def name(self) -> str:
        """As typed after ``--corruption``."""
        return f"{self.kind}:{self.severity}"

    def __call__(self, image: Tensor, id: str, /) -> Tensor:
        """Corrupt an image (3, H, W) uint8; the same pixels for the same id, in any process.

        All severities of a kind begin with the same state of the generator.
        """
        generator = seeded_generator(self.seed, self.kind, id)
        kind = CORRUPTIONS[self.kind]
        return to_bytes(kind.apply(to_float(image), self.severity, generator))


def parse_corruption(text: str) -> tuple[str, int]:
    """Name and severity of ``NAME:SEVERITY``, such as ``fog:3``.

    Raises:
        ValueError: for an unknown name, no severity, or one that is not 1 to 5.
    """
    name, _, severity = text.partition(":")
    if name not in CORRUPTIONS:
        raise ValueError(
            f"no corruption is called {name!r}{did_you_mean(name, CORRUPTIONS)}; "
            f"there are {', '.join(CORRUPTIONS)}"
        )
    if severity not in map(str, SEVERITIES):
        problem = f"{severity!r} is no whole number from 1 to 5" if severity else "is missing"
        raise ValueError(
            f"the severity of corruption {text!r} {problem}; "
            f"write {name}:1 (mild) to {name}:5 (strong)"
        )
    return name, int(severity)


def build_corruption(name: str, severity: int, seed: int) -> Appearance:
    """A corruption of images (3, H, W) uint8.

    Args:
        name: a key of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of everything random.

    Raises:
        ValueError: for an unknown name or another severity.
    """
    parse_corruption(f"{name}:{severity}")
    return Corruption(name, severity, seed)
