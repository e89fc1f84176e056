"""Maps of uncertainty from predictions, and the means of predicted instances."""

from uncertainty.instance import instance_mean, instance_uncertainty
from uncertainty.scores import SCORES

__all__ = ["SCORES", "instance_mean", "instance_uncertainty"]
