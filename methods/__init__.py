"""Methods by the name typed after ``--method``."""

from methods.base import Method
from methods.ensemble import Ensemble
from methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {"supervised": Supervised, "ensemble": Ensemble}

__all__ = ["METHODS", "Method"]
