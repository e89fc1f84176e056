import pytest
import torch
from torch.nn import functional as F

from network import build_model
from network.deeplab import DeepLabHeadV3Plus
from network.heads import HeadOptions, LearnedTemperature
from uncertainty import class_heads

CHANNELS = {"low_level": 8, "out": 16}
SIZE = (21, 27)
COSINE = HeadOptions("cosine", "learned", floor=1e-12)


def features(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        "low_level": torch.rand(2, 8, 13, 15, generator=generator).to(dtype),
        "out": torch.rand(2, 16, 4, 4, generator=generator).to(dtype),
    }


def head(options, seed=0, classes=5):
    torch.manual_seed(seed)
    return DeepLabHeadV3Plus(CHANNELS, classes, (2, 4, 6), options)


def by_the_spec(network, inputs, size):
    """Cosines and temperature from features that are upsampled before anything else."""
    large = F.interpolate(network.penultimate(inputs), size, mode="bilinear")
    weights = network.classifier[-1].weight.flatten(1)
    weights = weights / (weights.norm(dim=1, keepdim=True) + 1e-4)
    unit = large / (large.norm(dim=1, keepdim=True) + 1e-4)
    cosines = torch.einsum("cp,nphw->nchw", weights, unit)
    layer = network.temperature
    raw = torch.einsum("p,nphw->nhw", layer.conv.weight.flatten(), large)[:, None]
    return cosines, torch.sigmoid(layer.norm(raw)) + layer.floor


@pytest.mark.parametrize("training", [False, True])
def test_the_cheap_form_is_the_published_one(training):
    network = head(COSINE).double().train(training)
    inputs = features(torch.float64)
    with torch.set_grad_enabled(training):
        torch.manual_seed(3)  # of the dropout
        output = network(inputs, SIZE)
        torch.manual_seed(3)
        cosines, temperature = by_the_spec(network, inputs, SIZE)
    torch.testing.assert_close(output.temperature, temperature)
    torch.testing.assert_close(output.logits, cosines / temperature)
    assert torch.equal(output.logits.argmax(1), cosines.argmax(1))


def test_a_learned_temperature_divides_a_linear_head():
    plain, tempered = head(HeadOptions()).eval(), head(HeadOptions("linear", "learned")).eval()
    inputs = features()
    output = tempered(inputs, SIZE)
    assert plain(inputs, SIZE).temperature is None
    torch.testing.assert_close(output.logits * output.temperature, plain(inputs, SIZE).logits)


def test_a_temperature_does_not_change_the_weights_before_it():
    learned = HeadOptions("linear", "learned")
    plain, tempered = (head(options).state_dict() for options in (HeadOptions(), learned))
    assert all(torch.equal(plain[name], tempered[name]) for name in plain)
    assert set(tempered) - set(plain) == {
        "temperature.conv.weight",
        *(f"temperature.norm.{name}" for name in ("weight", "bias", "running_mean")),
        *(f"temperature.norm.{name}" for name in ("running_var", "num_batches_tracked")),
    }


def test_cosines_do_not_change_with_the_length_of_their_operands():
    network = head(HeadOptions("cosine")).eval()
    classes = network.classifier[-1]
    vectors = network.penultimate(features()) + 1
    before = classes(vectors, SIZE)
    torch.testing.assert_close(classes(10 * vectors, SIZE), before, rtol=0, atol=1e-3)
    with torch.no_grad():
        classes.weight *= 10
    torch.testing.assert_close(classes(vectors, SIZE), before, rtol=0, atol=1e-3)
    assert before.abs().max() < 1


def test_no_feature_is_no_evidence_and_has_a_gradient():
    classes = HeadOptions("cosine").class_head(16, 5)
    vectors = torch.zeros(1, 16, 3, 3, requires_grad=True)
    cosines = classes(vectors, (7, 7))
    assert not cosines.any()
    cosines.sum().backward()
    assert torch.isfinite(vectors.grad).all()


def test_a_temperature_lies_between_its_floor_and_one():
    layer = LearnedTemperature(256, 1e-12)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 256 + 2
    found = layer.train()(torch.rand(2, 256, 5, 5), (9, 11))
    assert found.shape == (2, 1, 9, 11)
    assert found.min() > 0
    assert found.max() <= 1 + 1e-9
    assert found.mean().item() == pytest.approx(0.5, abs=0.1)
    kept = layer.norm.running_mean.clone(), layer.norm.running_var.clone()
    layer.eval()(torch.rand(2, 256, 5, 5), (9, 11))
    assert torch.equal(layer.norm.running_mean, kept[0])
    assert torch.equal(layer.norm.running_var, kept[1])


def test_temperatures_and_cosines_stay_float32_under_autocast():
    network = head(HeadOptions("cosine", "learned", floor=1e-3)).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(features(), SIZE)
    assert output.logits.dtype == output.temperature.dtype == torch.float32
    assert output.temperature.min() > 1e-3


def test_cross_entropy_reaches_temperature_and_class_weights():
    network = head(COSINE).train()
    labels = torch.randint(0, 5, (2, *SIZE), generator=torch.Generator().manual_seed(1))
    F.cross_entropy(network(features(), SIZE).logits, labels).backward()
    layer = network.temperature
    for parameter in (layer.conv.weight, *layer.norm.parameters(), network.classifier[-1].weight):
        assert parameter.grad.abs().max() > 0


def test_gradients_of_head_and_loss_are_those_of_finite_differences():
    torch.manual_seed(0)
    classes, layer = COSINE.class_head(4, 3).double(), COSINE.temperature_layer(4).double()
    labels = torch.randint(0, 3, (1, 5, 6))
    vectors = torch.rand(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)

    def loss(vectors):
        logits = classes(vectors, (5, 6)) / layer(vectors, (5, 6))
        return F.cross_entropy(logits, labels)

    assert torch.autograd.gradcheck(loss, vectors)


def test_the_fast_form_trains_on_smaller_cosines_and_evaluates_exactly():
    fast, exact = head(HeadOptions("cosine", fast=True)), head(HeadOptions("cosine"))
    vectors = torch.rand(1, 256, 6, 6, generator=torch.Generator().manual_seed(2))
    quick, slow = (each.classifier[-1].train()(vectors, SIZE) for each in (fast, exact))
    assert 1e-4 < (quick - slow).abs().max() < 0.2
    evaluated = [each.classifier[-1].eval()(vectors, SIZE) for each in (fast, exact)]
    assert torch.equal(*evaluated)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_limits_and_masks_concern_the_classes_and_not_the_temperature(kind):
    network = head(HeadOptions(kind, "learned")).eval()
    (classes,) = class_heads(network)
    inputs = features()
    before = network(inputs, SIZE)
    classes.activation_limit = 0.5
    limited = network(inputs, SIZE)
    cut = classes(network.penultimate(inputs).clamp(max=0.5), SIZE)
    torch.testing.assert_close(limited.logits * limited.temperature, cut)
    assert torch.equal(limited.temperature, before.temperature)
    classes.activation_limit = None
    classes.weight_mask = torch.zeros(5, 256, dtype=torch.bool)
    bias = classes.bias[:, None, None] if kind == "linear" else 0
    masked = network(inputs, SIZE)
    expected = torch.zeros_like(before.logits) + bias
    torch.testing.assert_close(masked.logits * masked.temperature, expected)


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet", "deeplabv3plus_hrnetv2_32"])
def test_every_model_takes_them(name):
    model = build_model(name, 5, head=COSINE).eval()
    with torch.no_grad():
        output = model(torch.rand(1, 3, 97, 65))
    assert output.logits.shape == (1, 5, 97, 65)
    assert output.temperature.shape == (1, 1, 97, 65)
