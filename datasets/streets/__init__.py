"""Streets: generated road scenes.

A scene is planned (``planning``), what can be seen of it is found (``visibility``), placed
(``placing``), drawn (``raster``), lit (``shading``) and given weather and a camera (``weather``);
``render`` does all of it. ``Streets`` is the data set, ``StreetsObstacles`` the one with unknown
obstacles (``hazards``), ``StreetsObjects`` the one of objects that are in some scenes only
(``objects``), ``write_layout`` writes scenes as files of other data sets.
"""

from datasets.streets.dataset import Streets, StreetsObjects, StreetsObstacles
from datasets.streets.layouts import write_layout

__all__ = ["Streets", "StreetsObjects", "StreetsObstacles", "write_layout"]
