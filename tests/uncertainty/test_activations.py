import pytest
import torch
from torch import nn

from network.heads import CosineHead, LinearHead
from tests.uncertainty.toys import ToyNetwork
from uncertainty.activations import (
    HeadStatistics,
    activation_codes,
    activation_of_codes,
    class_heads,
)


def test_codes_keep_the_order_and_a_relative_width():
    values = torch.tensor([-torch.inf, -7.5, -1e-30, 0.0, 1e-30, 0.1, 1.0, 1.004, 3e38, torch.inf])
    codes = activation_codes(values)
    assert (codes.diff() > 0).all()
    low, high = (activation_of_codes(codes.long() + step) for step in (0, 1))
    finite = slice(1, -1)
    assert (low[finite] <= values[finite]).all()
    assert (values[finite] < high[finite]).all()
    assert ((high - low)[4:-1] <= values[4:-1] * 2**-7).all()


def test_percentiles_of_a_known_histogram():
    codes = activation_codes(torch.tensor([0.0, 1.0, 2.0])).long()
    head = HeadStatistics(1, torch.zeros(1), codes, torch.tensor([81, 10, 10]))
    for share in (0, 50, 80):
        assert head.percentile(share) == pytest.approx(0, abs=1e-37)
    # the first of ten in [1, 1 + 2^-8), and half way to it
    assert head.percentile(81) == pytest.approx(1 + 2**-8 * 0.05)
    assert head.percentile(80.5) == pytest.approx((1 + 2**-8 * 0.05) / 2)
    assert head.percentile(100) == pytest.approx(2 + 2**-7 * 0.95)


def test_class_heads_are_found_in_the_order_of_the_members():
    members = nn.ModuleList(ToyNetwork() for _ in range(3))
    assert class_heads(members) == [member.head for member in members]
    assert class_heads(nn.Conv2d(3, 4, 1)) == []


@pytest.mark.parametrize("kind", [LinearHead, CosineHead])
def test_the_heads_of_the_networks_are_found(kind):
    head = kind(8, 4)
    assert class_heads(nn.Sequential(nn.Conv2d(3, 8, 1), head)) == [head]
