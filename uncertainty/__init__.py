"""Maps of uncertainty from predictions, and the means of predicted instances."""

from uncertainty.activations import class_heads
from uncertainty.instance import instance_mean, instance_uncertainty
from uncertainty.score_names import ScoreName, parse_score_name, split_names
from uncertainty.scores import PUBLISHED, SCORES, ScoreSettings, build_score, describe_scores
from uncertainty.statistics import ScoreStatistics, StatisticsCollector
from uncertainty.statistics_files import load_statistics, save_statistics

__all__ = [
    "PUBLISHED",
    "SCORES",
    "ScoreName",
    "ScoreSettings",
    "ScoreStatistics",
    "StatisticsCollector",
    "build_score",
    "class_heads",
    "describe_scores",
    "instance_mean",
    "instance_uncertainty",
    "load_statistics",
    "parse_score_name",
    "save_statistics",
    "split_names",
]
