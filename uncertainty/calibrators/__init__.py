"""Calibrators: fitted on labelled pixels after training, applied to predictions."""

from uncertainty.calibrators.base import Calibrator
from uncertainty.calibrators.cluster import ClusterTemperature, fit_clusters, fit_temperature
from uncertainty.calibrators.files import load_calibrator, save_calibrator
from uncertainty.calibrators.local import LocalTemperature, LocalTemperatureHead
from uncertainty.calibrators.search import TemperatureFit, TemperatureGrid, search_temperature
from uncertainty.calibrators.temperature import Temperature, fit_temperature_by_nll
from uncertainty.calibrators.vector import Vector, fit_vector

CALIBRATORS: dict[str, str] = {
    "temperature": "one temperature for all pixels, by calibration error or likelihood",
    "vector": "a weight and a bias for each class, by likelihood; can change the prediction",
    "cluster": "a temperature for each cluster of images, found from the network's features",
    "local": "a temperature for each pixel, from a small network on logits and image",
}

__all__ = [
    "CALIBRATORS",
    "Calibrator",
    "ClusterTemperature",
    "LocalTemperature",
    "LocalTemperatureHead",
    "Temperature",
    "TemperatureFit",
    "TemperatureGrid",
    "Vector",
    "fit_clusters",
    "fit_temperature",
    "fit_temperature_by_nll",
    "fit_vector",
    "load_calibrator",
    "save_calibrator",
    "search_temperature",
]
