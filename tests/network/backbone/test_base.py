import copy

import pytest
import torch
from torch import nn

from network.backbone.base import Backbone, Feature, checkpointed, frozen_statistics

FEATURES = {
    "low_level": Feature("first", 4),
    "aux": Feature("second", 6),
    "out": Feature("third", 8),
}


class Small(Backbone):
    """Three stages with everything that recomputation can get wrong."""

    def __init__(self, **options):
        super().__init__(FEATURES, **options)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, momentum=None))
        self.third = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8))
        self.runs = 0
        self.second.register_forward_pre_hook(self.count)

    def count(self, *_):
        self.runs += 1

    def stages(self):
        return (("first", (self.first,)), ("second", (self.second,)), ("third", (self.third,)))


class Branches(Small):
    """The middle stage makes two branches."""

    def __init__(self, **options):
        super().__init__(**options)
        self.split = Split()

    def stages(self):
        return (
            ("first", (self.first,)),
            ("second", (self.second, self.split)),
            ("third", (Join(), self.third)),
        )

    def feature(self, name, x):
        return x[0] if isinstance(x, list) else x


class Split(nn.Module):
    def forward(self, x):
        return [x, 2 * x]


class Join(nn.Module):
    def forward(self, x):
        return x[0] + x[1]


def trained(backbone, steps=2):
    """Features, gradients and state after some steps of training."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(backbone.parameters(), 0.1)
    backbone.train()
    for _ in range(steps):
        features = backbone(torch.rand(4, 3, 9, 9))
        optimizer.zero_grad()
        sum(feature.square().mean() for feature in features.values()).backward()
        optimizer.step()
    gradients = {name: p.grad for name, p in backbone.named_parameters()}
    return features, gradients, backbone.state_dict()


@pytest.mark.parametrize("kind", [Small, Branches])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_checkpointing_changes_nothing(kind, dropout):
    plain = kind(dropout=dropout)
    saving = copy.deepcopy(plain)
    saving.checkpoint_activations = True
    for found, expected in zip(trained(saving), trained(plain), strict=True):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    assert int(saving.first[1].num_batches_tracked) == 2
    assert (plain.runs, saving.runs) == (2, 4)  # it did recompute


def test_no_recomputation_without_gradients():
    backbone = Small(checkpoint_activations=True)
    with torch.no_grad():
        backbone(torch.rand(2, 3, 9, 9))
    assert backbone.runs == 1


def test_checkpointing_in_evaluation_mode_uses_running_statistics():
    plain = Small().eval()
    saving = copy.deepcopy(plain)
    saving.checkpoint_activations = True
    images = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(saving(images)["out"], plain(images)["out"])
    saving(images)["out"].mean().backward()
    assert int(saving.first[1].num_batches_tracked) == 0


def test_frozen_statistics_are_restored_after_an_error():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    counter, mean = norm.num_batches_tracked, norm.running_mean.clone()
    with pytest.raises(ValueError, match="expected 4D"), frozen_statistics([norm]):
        norm(norm(torch.rand(3, 2, 4, 4)).mean())
    assert norm.momentum == 0.3
    assert norm.num_batches_tracked is counter
    assert int(counter) == 0
    assert torch.equal(norm.running_mean, mean)


def test_checkpointed_saves_memory():
    layers = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid()) for _ in range(8)))
    x = torch.rand(1, 4, 32, 32, requires_grad=True)
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    def size(run):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run()
        return sum(kept)

    assert size(lambda: checkpointed(layers, x, [layers])) < size(lambda: layers(x)) / 4


def test_features_are_the_stages_outputs():
    """The auxiliary feature costs nothing: it is the tensor that the next stage reads."""
    backbone = Small().eval()
    seen = {}
    backbone.second.register_forward_hook(lambda _m, _i, output: seen.update(aux=output))
    features = backbone(torch.rand(1, 3, 9, 9))
    assert features["aux"] is seen["aux"]
    assert {name: f.shape[1] for name, f in features.items()} == {
        name: tap.channels for name, tap in FEATURES.items()
    }
