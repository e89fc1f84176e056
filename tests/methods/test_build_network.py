"""From flags to the network."""

import pytest
import torch
from torch import nn

from methods.supervised import build_network
from options import parse


def network(*flags):
    opts = parse([*flags, "--pretrained_backbone", "none"])
    with torch.device("meta"):
        return build_network(opts, 4)


def test_without_the_flag_there_is_one_head():
    assert network().aux_classifier is None


@pytest.mark.parametrize("flags", [["--aux_head"], ["--model", "deeplab_multi_resnet101"]])
def test_flags_of_pyramid_heads(flags):
    built = network(*flags, "--head_norm", "gn", "--use_se", "--drop", "0.3")
    classifier = built.aux_classifier.classifier
    assert [type(part).__name__ for part in classifier.bottleneck] == [
        "SqueezeExcitation",
        "Conv2d",
        "GroupNorm",
    ]
    assert classifier.dropout.p == 0.3
    plain = network(*flags).aux_classifier.classifier
    assert isinstance(plain.bottleneck[1], nn.BatchNorm2d)
    assert plain.dropout.p == 0.1


def test_full_initialisation():
    for choice, biases in (("published", True), ("full", False)):
        opts = parse(["--aux_head", "--head_init", choice, "--pretrained_backbone", "none"])
        branch = build_network(opts, 4).aux_classifier.classifier.pyramid.branches[1]
        assert branch[0].bias.any().item() == biases
