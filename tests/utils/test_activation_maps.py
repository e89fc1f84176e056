"""Channels of activation maps: which are foreground, and what the background is."""

import pytest
import torch

from utils.activation_maps import foreground, largest_only, range_normalised, with_background


@pytest.fixture
def maps():
    return torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("background", range(4))
def test_foreground_is_every_other_channel(maps, background):
    others = [channel for channel in range(4) if channel != background]
    assert torch.equal(foreground(maps, background), maps[:, others])
    assert torch.equal(foreground(maps[..., 0, 0], background), maps[:, others, 0, 0])
    assert foreground(maps, None) is maps


@pytest.mark.parametrize("background", range(4))
def test_the_background_is_what_the_largest_leaves(maps, background):
    filled = with_background(maps, background)
    largest = foreground(maps, background).max(1).values
    assert torch.equal(filled[:, background], 1 - largest)
    assert torch.equal(foreground(filled, background), foreground(maps, background))
    assert with_background(maps, None) is maps


@pytest.mark.parametrize("background", [0, 2, 3, None])
def test_a_pixel_keeps_its_largest_foreground_value(maps, background):
    maps[0, :, 0, 0] = 0.5  # equal ones stay
    kept = largest_only(maps, background)
    others = foreground(kept, background)
    assert torch.equal(others.amax(1), foreground(maps, background).amax(1))
    counts = (others > 0).sum(1)
    assert counts[0, 0, 0] == others.shape[1]
    counts[0, 0, 0] = 1
    assert (counts == 1).all()
    if background is not None:
        assert torch.equal(kept[:, background], maps[:, background])


def test_normalised_maps_start_at_zero_and_end_just_below_one(maps):
    shifted = maps * 7 - 3
    normalised = range_normalised(shifted)
    assert not normalised.amin((2, 3)).any()
    assert ((normalised.amax((2, 3)) < 1) & (normalised.amax((2, 3)) > 1 - 1e-4)).all()
    torch.testing.assert_close(normalised, range_normalised(maps), rtol=0, atol=1e-4)
    assert not range_normalised(torch.full((1, 1, 2, 2), -5.0)).any()
