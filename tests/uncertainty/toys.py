"""Small ensembles, statistics and a network with a class head."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from uncertainty.statistics import ClassMoments, ScoreStatistics
from utils.types import Prediction


def ensemble(members, temperatures=None):
    """What an ensemble predicts: the log of the mean softmax, and its members."""
    log_mean = members.log_softmax(2).logsumexp(0) - math.log(len(members))
    return Prediction(
        log_mean,
        member_logits=members,
        temperature=None if temperatures is None else temperatures.mean(0),
        member_temperatures=temperatures,
    )


def class_moments(mean, deviation, classes):
    """Moments of a thousand pixels of each class, about the mean plus the number of the class."""
    means = mean + torch.arange(classes, dtype=torch.float64)
    count = torch.full((classes,), 1000)
    return ClassMoments(count, means * 1000, (deviation**2 + means.square()) * 1000)


def statistics_of(members, *, classes, moments=None, reverse=False):
    """Statistics whose members differ; the last moments are those of their mean logits."""
    made = moments or [class_moments(5.0 + n, 1.0 + n / 2, classes) for n in range(members + 1)]
    own = tuple(made[:members])
    joint = made[0] if members == 1 else made[members]
    return ScoreStatistics(own[::-1] if reverse else own, joint)


class ToyHead(nn.Module):
    """A class head without bias."""

    def __init__(self, channels, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, channels, 1, 1))
        self.activation_limit = None
        self.weight_mask = None

    def class_weights(self):
        return self.weight.flatten(1)

    def class_features(self, features):
        return features

    def forward(self, features, size):
        if self.activation_limit is not None:
            features = features.clamp(max=self.activation_limit)
        weight = self.weight
        if self.weight_mask is not None:
            weight = weight * self.weight_mask[..., None, None]
        return F.interpolate(F.conv2d(features, weight), size=tuple(size), mode="bilinear")


class ToyNetwork(nn.Module):
    """Convolution at half the size, ReLU, class head."""

    def __init__(self, channels=8, classes=4):
        super().__init__()
        self.body = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.head = ToyHead(channels, classes)

    def features(self, images):
        return self.body(images).relu()

    def forward(self, images):
        return self.head(self.features(images), images.shape[-2:])


def predictor(network):
    """A predict function of one network, or of several as an ensemble."""

    def predict(images, needs=frozenset()):
        if isinstance(network, nn.ModuleList):
            return ensemble(torch.stack([member(images) for member in network]))
        return Prediction(network(images))

    return predict
