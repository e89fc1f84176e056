import pytest
import torch
from torch import nn

from network.backbone import build_backbone
from network.backbone.hrnetv2 import HighResolutionModule


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return build_backbone("hrnetv2_32", 16).eval()


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 95), (50, 130)])
def test_any_size(backbone, size):
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, *size))
    height, width = (-(-side // 4) for side in size)
    assert features["low_level"].shape == (1, 256, height, width)
    assert features["aux"].shape == (1, 32, height, width)
    assert features["out"].shape == (1, 480, height, width)


def test_lower_branches_stay_aligned():
    """Pixel (y, x) of the first branch gets pixel (y // f, x // f) of one f times smaller."""
    module = HighResolutionModule([1, 1, 1, 1])
    for source in range(1, 4):
        module.fuse_layers[0][source] = nn.Identity()
    branches = [torch.rand(1, 1, *size) for size in ((13, 21), (7, 11), (4, 6), (2, 3))]
    rows, columns = torch.arange(13)[:, None], torch.arange(21)[None]
    expected = sum(branch[..., rows // 2**k, columns // 2**k] for k, branch in enumerate(branches))
    torch.testing.assert_close(module._fuse(0, branches), expected)


def test_near_multiples_of_32_change_little(backbone):
    """One more column of pixels changes the features far from it only slightly."""
    images = torch.rand(1, 3, 64, 97)
    with torch.no_grad():
        wide = backbone(images)["low_level"]
        narrow = backbone(images[..., :96])["low_level"]
    assert wide.shape[-1] == 25
    torch.testing.assert_close(wide[..., :18], narrow[..., :18], rtol=1e-4, atol=1e-4)
