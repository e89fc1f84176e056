"""Methods by the name typed after ``--method``."""

from methods.base import Method
from methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {"supervised": Supervised}

__all__ = ["METHODS", "Method"]
