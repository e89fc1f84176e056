"""Streets: generated road scenes.

A scene is planned (``planning``), its models placed (``placing``), drawn (``raster``), lit
(``shading``) and given weather and a camera (``weather``); ``render`` does all of it.
"""

from datasets.streets.dataset import Streets

__all__ = ["Streets"]
