"""Methods by the name typed after ``--method``."""

from methods.base import Method
from methods.cam import Cam
from methods.ensemble import Ensemble
from methods.local_temperature import LocalTemperatureScaling
from methods.mrnet import MRNet
from methods.rectified import Rectified
from methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "ensemble": Ensemble,
    "mrnet": MRNet,
    "rectified": Rectified,
    "cam": Cam,
    "local_temperature": LocalTemperatureScaling,
}

__all__ = ["METHODS", "Method"]
