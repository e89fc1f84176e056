"""Training of activation maps without consistency, which needs no refined maps."""

import torch

from network import cam
from network.upsampling import upsample
from tests.methods.test_cam import TRAINED, method, steps


def beside_refined(network):
    """The raw maps of a network, with all the work for the refined ones."""
    return lambda *args: network.maps(*args).raw


def test_without_consistency_the_refined_maps_are_not_made_and_nothing_else_changes(monkeypatch):
    """Three steps, bit for bit those that make the refined maps, too."""
    resized = []

    def counted(maps, *args, **kwargs):
        """Upsampling that notes every call."""
        resized.append(maps.shape)
        return upsample(maps, *args, **kwargs)

    monkeypatch.setattr(cam, "upsample", counted)
    found = []
    for full in (False, True):
        trained = method("--cam_consistency", "none", *TRAINED, "--lr", "0.05", dropout=0.5)
        if full:
            monkeypatch.setattr(trained.network, "raw_maps", beside_refined(trained.network))
        resized.clear()
        torch.manual_seed(1)
        steps(trained, 3, torch.Generator().manual_seed(0))
        found.append((trained.state_dict(), len(resized)))
    (lean, once), (whole, twice) = found
    assert (once, twice) == (3, 6)
    assert lean.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in lean.items())
