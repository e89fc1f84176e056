"""What there is to choose from, for ``--list``."""

from __future__ import annotations

import inspect
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from datasets import DATASETS
from datasets.corruptions import CORRUPTIONS
from losses import LOSSES
from methods import METHODS
from metrics import METRICS
from network import ENSEMBLES, MODELS, describe
from uncertainty import describe_scores
from uncertainty.calibrators import CALIBRATORS

RECIPES = Path(__file__).parents[1] / "recipes"


def first_line(documented: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(documented) or "").split("\n", 1)[0]


def recipe_titles() -> dict[str, str]:
    """Every recipe with its first comment."""
    return {
        f"@recipes/{path.name}": path.read_text().split("\n", 1)[0].lstrip("# ")
        for path in sorted(RECIPES.glob("*.args"))
    }


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "models": lambda: {name: describe(name) for name in MODELS} | ENSEMBLES,
    "datasets": lambda: {name: first_line(kind) for name, kind in DATASETS.items()},
    "methods": lambda: {name: first_line(kind) for name, kind in METHODS.items()},
    "losses": lambda: {name: entry.description for name, entry in LOSSES.items()},
    "scores": describe_scores,
    "corruptions": lambda: {name: kind.description for name, kind in CORRUPTIONS.items()},
    "calibrators": lambda: dict(CALIBRATORS),
    "metrics": lambda: {name: first_line(kind) for name, kind in METRICS.items()},
    "recipes": recipe_titles,
}


def list_choices(opts: Namespace) -> int:
    """Print the names behind ``--list`` with one line each."""
    entries = CATALOGUE[opts.list]()
    width = max(map(len, entries))
    for name, line in entries.items():
        sys.stdout.write(f"{name:{width}}  {line}\n")
    return 0
