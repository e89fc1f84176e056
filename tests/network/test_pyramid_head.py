import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network.deeplab import convert_to_separable_conv
from network.heads import PLAIN, HeadOptions
from network.pyramid_head import NORMS, PyramidHead, PyramidOptions
from tests.network.conftest import rule_weights

CHANNELS = {"low_level": 6, "aux": 5, "out": 8}
BOTH = ("out", "aux")
ABET = HeadOptions("cosine", "learned")
OPTIONS = [PyramidOptions(norm, se) for norm in NORMS for se in (False, True)]


def features(n=2, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(n, CHANNELS[name], 9, 7, generator=generator).to(dtype)
        for name in ("aux", "out")
    }


def head(options, kind=PLAIN, taps=BOTH, **others):
    """A head with weights that are no special case."""
    with torch.device("meta"):
        built = PyramidHead(CHANNELS, 3, taps, options, kind, **others)
    built.load_state_dict(rule_weights(built.state_dict()), assign=True)
    return built.eval()


def norm_by_rule(kind, state, name, x):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    if kind == "bn":
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, weight, bias)
    groups = {"in": x.shape[1], "gn": 32}[kind]
    parts = x.unflatten(1, (groups, -1))
    mean = parts.mean((2, 3, 4), keepdim=True)
    var = parts.var((2, 3, 4), keepdim=True, unbiased=False)
    unit = ((parts - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
    return unit * weight[:, None, None] + bias[:, None, None]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o.norm}-{o.squeeze_excitation}")
def test_arithmetic_of_the_specification(options):
    built = head(options)
    state = built.classifier.state_dict()
    inputs = features()
    x = torch.cat([inputs["out"], inputs["aux"]], 1)
    branches = []
    for number, rate in enumerate((0, 6, 12, 18, 24)):
        name = f"pyramid.branches.{number}"
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        y = F.conv2d(x, weight, bias, padding=rate, dilation=max(rate, 1))
        branches.append(F.relu(norm_by_rule(options.norm, state, f"{name}.1", y)))
    y = torch.cat(branches, 1)
    assert y.shape[1] == 1280
    conv = 0
    if options.squeeze_excitation:
        conv = 1
        squeezed = F.linear(y.mean((2, 3)), *(state[f"bottleneck.0.se.0.{e}"] for e in PARTS))
        squeezed = F.linear(F.relu(squeezed), *(state[f"bottleneck.0.se.2.{e}"] for e in PARTS))
        y = y * torch.sigmoid(squeezed)[:, :, None, None]
    y = F.conv2d(y, *(state[f"bottleneck.{conv}.{e}"] for e in PARTS), padding=1)
    y = norm_by_rule(options.norm, state, f"bottleneck.{conv + 1}", y)
    with torch.no_grad():
        torch.testing.assert_close(built.penultimate(inputs), y, rtol=1e-3, atol=1e-4)
        logits = built(inputs, (30, 21)).logits
    assert y.min() < 0  # no ReLU
    y = F.conv2d(y, state["classes.weight"])
    y = F.interpolate(y, (30, 21), mode="bilinear", align_corners=True)
    torch.testing.assert_close(logits, y, rtol=1e-3, atol=1e-4)


PARTS = ("weight", "bias")


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("taps", "se", "expected"),
    [
        (("aux",), True, 15_818_832),
        (("aux",), False, 15_612_672),
        (BOTH, True, 35_217_488),
        (BOTH, False, 35_011_328),
    ],
)
@pytest.mark.parametrize("norm", NORMS)
def test_number_of_parameters(taps, se, expected, norm):
    with torch.device("meta"):
        built = PyramidHead({"aux": 1024, "out": 2048}, 19, taps, PyramidOptions(norm, se))
    assert parameters(built) == expected


def drawn(full):
    torch.manual_seed(0)
    options = PyramidOptions("gn", squeeze_excitation=True, full_init=full)
    return PyramidHead({"aux": 64}, 19, ("aux",), options).classifier


def spread(weight):
    """Standard deviation and kurtosis: 3 if normal, 1.8 if uniform."""
    weight = weight.detach()
    return weight.std().item(), ((weight / weight.std()) ** 4).mean().item()


def is_normal(weight, deviation):
    found, kurtosis = spread(weight)
    return found == pytest.approx(deviation, rel=0.05) and kurtosis == pytest.approx(3, rel=0.1)


def test_published_initialisation():
    """It reaches the 3x3 convolution and the classes; the rest is the framework's, uniform."""
    classifier = drawn(full=False)
    se, conv, norm = classifier.bottleneck
    assert is_normal(conv.weight, (2 / (1280 * 9)) ** 0.5)
    assert not conv.bias.any()
    assert is_normal(classifier.classes.weight, 0.001)
    assert classifier.classes.bias is None
    assert (norm.weight == 1).all()
    assert not norm.bias.any()
    for branch, fan_in in zip(classifier.pyramid.branches, (64, *4 * (576,)), strict=True):
        assert branch[0].weight.abs().max() <= fan_in**-0.5
        assert spread(branch[0].weight)[1] == pytest.approx(1.8, rel=0.05)
        assert branch[0].bias.any()
    assert se.se[0].weight.abs().max() <= 1280**-0.5
    assert se.se[2].bias.any()


def test_full_initialisation():
    classifier = drawn(full=True)
    se, conv, _ = classifier.bottleneck
    for branch, fan_in in zip(classifier.pyramid.branches, (64, *4 * (576,)), strict=True):
        assert is_normal(branch[0].weight, (2 / fan_in) ** 0.5)
        assert not branch[0].bias.any()
    assert is_normal(conv.weight, (2 / (1280 * 9)) ** 0.5)
    assert is_normal(se.se[0].weight, (2 / 80) ** 0.5)  # fan-out
    assert is_normal(se.se[2].weight, (2 / 1280) ** 0.5)
    assert not se.se[0].bias.any()
    assert is_normal(classifier.classes.weight, 0.001)


def test_norms():
    kinds = {norm: head(PyramidOptions(norm)).classifier.bottleneck[-1] for norm in NORMS}
    assert isinstance(kinds["bn"], nn.BatchNorm2d)
    assert isinstance(kinds["in"], nn.InstanceNorm2d)
    assert kinds["gn"].num_groups == 32
    assert kinds["in"].affine
    with pytest.raises(ValueError, match="--head_norm ln is not offered; choose bn, in, gn"):
        head(PyramidOptions("ln"))


def test_whole_channels_are_dropped_in_training_only():
    built = head(PyramidOptions("gn", drop_rate=0.5))
    inputs = features()
    with torch.no_grad():
        plain = built.penultimate(inputs)
        built.train()
        torch.manual_seed(0)
        dropped = built.penultimate(inputs)
    empty = (dropped == 0).flatten(2).all(2)
    assert 0.4 < empty.float().mean() < 0.6
    kept = ~empty
    torch.testing.assert_close(dropped[kept], 2 * plain[kept])
    assert built.classifier.dropout.p == 0.5
    assert PyramidOptions().drop_rate == 0.1


@pytest.mark.parametrize("norm", ["in", "gn"])
def test_an_image_is_normalised_by_itself(norm):
    built = head(PyramidOptions(norm, squeeze_excitation=True, drop_rate=0.0)).train()
    inputs = features(3)
    with torch.no_grad():
        together = built(inputs, (20, 20)).logits
        alone = built({name: each[1:2] for name, each in inputs.items()}, (20, 20)).logits
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("align_corners", [True, False])
def test_cosine_and_temperature(align_corners):
    """On features that are upsampled first, as the exact form is defined."""
    built = head(PyramidOptions("gn"), ABET, align_corners=align_corners).double()
    inputs = features(dtype=torch.float64)
    with torch.no_grad():
        output = built(inputs, (30, 21))
        full = built.penultimate(inputs)
        full = F.interpolate(full, (30, 21), mode="bilinear", align_corners=align_corners)
        cosines, temperature = built.classifier[-1](full), built.temperature(full)
    torch.testing.assert_close(output.temperature, temperature)
    torch.testing.assert_close(output.logits, cosines / temperature)
    assert cosines.abs().max() < 1


def test_separable():
    built = convert_to_separable_conv(head(PyramidOptions("gn", squeeze_excitation=True)))
    convs = [m for m in built.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    assert [conv.dilation[0] for conv in convs] == [6, 12, 18, 24, 1]
    assert all(conv.groups == conv.in_channels for conv in convs)
    assert built(features(), (20, 20)).logits.shape == (2, 3, 20, 20)
