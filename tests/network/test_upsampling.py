import pytest
import torch
from torch.nn import functional as F

from network import upsampling
from network.upsampling import upsample, upsampled_square_norm

SIZES = [  # features (N, P, h, w) and the size of the result
    ((2, 7, 5, 6), (17, 23)),
    ((1, 3, 1, 4), (8, 9)),
    ((1, 3, 4, 1), (3, 9)),
    ((1, 5, 9, 9), (4, 5)),
    ((1, 4, 3, 3), (3, 3)),
    ((1, 2, 1, 1), (4, 4)),
]


@pytest.fixture(params=[1, 1 << 20], ids=["row by row", "at once"])
def block(request, monkeypatch):
    monkeypatch.setattr(upsampling, "BLOCK", request.param)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_the_norm_is_that_of_features_which_are_upsampled_first(block, shape, size, align_corners):
    features = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(features, size, mode="bilinear", align_corners=align_corners)
    expected = large.square().sum(1, keepdim=True)
    for wanted in (features, features.clone().requires_grad_()):
        found = upsampled_square_norm(wanted, size, align_corners=align_corners)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        found = upsampled_square_norm(features, size, align_corners=align_corners)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 2, 1, 4), (1, 2, 4, 1), (1, 2, 2, 2)])
def test_its_gradient_is_that_of_finite_differences(block, shape, align_corners):
    features = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def square(features):
        return upsampled_square_norm(features, (7, 9), align_corners=align_corners)

    assert torch.autograd.gradcheck(square, features.requires_grad_())


def test_upsampling_is_float32_at_least():
    small = torch.rand(1, 2, 3, 2)
    expected = F.interpolate(small.bfloat16().float(), (9, 7), mode="bilinear")
    torch.testing.assert_close(upsample(small.bfloat16(), (9, 7)), expected)
    assert upsample(small.double(), (9, 7)).dtype == torch.float64
    assert upsample(small.bfloat16(), None).dtype == torch.bfloat16
