import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network.discriminator import MultiScaleDiscriminator

OWN = 347_233  # parameters of one scale on 19 classes


def probabilities(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).softmax(1)


def test_number_of_parameters():
    with torch.device("meta"):
        built = MultiScaleDiscriminator(19)
    counts = [sum(p.numel() for p in scale.parameters()) for scale in built.scales]
    assert counts == [OWN] * 3
    assert sum(p.numel() for p in built.parameters()) == 1_041_699


@pytest.mark.parametrize("size", [(64, 96), (37, 53)])
def test_one_map_a_scale(size):
    found = MultiScaleDiscriminator(4)(probabilities(2, 4, *size))
    strides = (8, 16, 32)
    expected = [(2, 1, *(-(-side // stride) for side in size)) for stride in strides]
    assert [tuple(each.shape) for each in found] == expected


def test_weights_as_drawn():
    torch.manual_seed(0)
    built = MultiScaleDiscriminator(19)
    convs = [m for m in built.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 3 * (5 + 2 * 4 + 1)
    assert all(not conv.bias.any() for conv in convs)
    weights = torch.cat([conv.weight.flatten() for conv in convs]).detach()
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert ((weights / weights.std()) ** 4).mean().item() == pytest.approx(3, rel=0.02)
    firsts = [scale[0].weight for scale in built.scales]
    assert not torch.equal(firsts[0], firsts[1])


def scale_by_rule(weights, x):
    """One scale of the specification, from weights and biases in their order."""
    pairs = iter(zip(weights[::2], weights[1::2], strict=True))
    for stride in (2, 1, 2, 1, 2):
        x = F.leaky_relu(F.conv2d(x, *next(pairs), stride=stride, padding=1), 0.2)
    for _ in range(4):
        y = F.leaky_relu(F.conv2d(x, *next(pairs), padding=1), 0.2)
        x = x + F.conv2d(y, *next(pairs), padding=1)
    return F.conv2d(x, *next(pairs))


def halved(x):
    """Means over the pixels of each 3x3 window that lie inside."""
    ones = torch.ones_like(x)
    total, inside = (F.avg_pool2d(each, 3, 2, 1) for each in (x, ones))
    return total / inside


def test_arithmetic_of_the_specification():
    torch.manual_seed(0)
    built = MultiScaleDiscriminator(3).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = probabilities(2, 3, 37, 26).double()
    for scale, found in zip(built.scales, built(x), strict=True):
        torch.testing.assert_close(found, scale_by_rule(list(scale.parameters()), x))
        x = halved(x)


def test_gradients_of_second_order():
    """What a gradient penalty needs: the slope at the input depends on the weights."""
    torch.manual_seed(0)
    built = MultiScaleDiscriminator(2).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = probabilities(2, 2, 24, 24).double().requires_grad_()
    step = 1e-7  # so small that no ReLU changes its side

    def penalty(number):
        (slope,) = torch.autograd.grad(built(x)[number].sum(), x, create_graph=True)
        assert slope.shape == x.shape
        return slope.square().sum()

    for number, scale in enumerate(built.scales):
        weight = scale[0].weight
        (gradient,) = torch.autograd.grad(penalty(number), weight)
        around = []
        for change in (step, -2 * step):  # above, then below
            with torch.no_grad():
                weight[0, 0, 1, 1] += change
            around.append(penalty(number).item())
        with torch.no_grad():
            weight[0, 0, 1, 1] += step
        difference = (around[0] - around[1]) / (2 * step)
        assert gradient[0, 0, 1, 1].item() == pytest.approx(difference, rel=1e-4)
        assert difference != 0


def test_each_scale_has_its_own_gradient():
    torch.manual_seed(0)
    built = MultiScaleDiscriminator(2)
    built(probabilities(1, 2, 40, 40))[1].sum().backward()
    reached = [any(p.grad is not None for p in scale.parameters()) for scale in built.scales]
    assert reached == [False, True, False]
