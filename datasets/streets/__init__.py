"""Streets: generated road scenes.

A scene is planned (``planning``), what can be seen of it is found (``visibility``), placed
(``placing``), drawn (``raster``), lit (``shading``) and given weather and a camera (``weather``);
``render`` does all of it. ``Streets`` is the data set, ``StreetsObstacles`` the one with unknown
obstacles (``hazards``), ``write_layout`` writes scenes as files of other data sets.
"""

from datasets.streets.dataset import Streets, StreetsObstacles
from datasets.streets.layouts import write_layout

__all__ = ["Streets", "StreetsObstacles", "write_layout"]
