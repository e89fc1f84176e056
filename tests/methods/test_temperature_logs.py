"""What training tells of learned temperatures, and when it warns."""

import pytest
import torch

from methods import METHODS
from methods.temperature_logs import SATURATED, temperature_logs, warn_if_saturated
from options import parse
from utils.types import SegOutput

NAMES = ["temperature", "temperature_min", "temperature_max", "training_accuracy"]


def output(seed, learned=True):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    temperature = torch.rand(2, 1, 4, 5, generator=generator, requires_grad=True)
    return SegOutput(logits, temperature=temperature if learned else None)


@pytest.fixture
def labels():
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(9))
    labels[:, :2] = 255
    return labels


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_one_network_against_numpy(labels, kind):
    one = output(0)
    found = temperature_logs([one], labels.to(kind))
    assert list(found) == NAMES
    values = one.temperature.detach().numpy()
    expected = [values.mean(), values.min(), values.max()]
    known = labels.numpy() != 255
    right = one.logits.detach().numpy().argmax(1) == labels.numpy()
    expected.append(right[known].mean())
    assert [float(value) for value in found.values()] == pytest.approx(expected, rel=1e-6)
    assert not any(value.requires_grad for value in found.values())


def test_members_count_together_and_those_without_a_temperature_do_not(labels):
    first, second = output(0), output(1)
    joint = temperature_logs([first, output(2, learned=False), second], labels)
    one, other = (temperature_logs([each], labels) for each in (first, second))
    assert joint["temperature"] == pytest.approx((one["temperature"] + other["temperature"]) / 2)
    assert joint["temperature_min"] == min(one["temperature_min"], other["temperature_min"])
    assert joint["temperature_max"] == max(one["temperature_max"], other["temperature_max"])
    mean = (one["training_accuracy"] + other["training_accuracy"]) / 2
    assert joint["training_accuracy"] == pytest.approx(mean)


def test_nothing_is_said_without_a_learned_temperature(labels):
    assert temperature_logs([output(0, learned=False)], labels) == {}
    assert temperature_logs([], labels) == {}


def test_void_alone_has_an_accuracy_of_0(labels):
    found = temperature_logs([output(0)], torch.full_like(labels, 255))
    assert found["training_accuracy"] == 0
    assert torch.isfinite(found["temperature"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, False),
        ({"training_accuracy": 0.9899}, False),
        ({"training_accuracy": SATURATED}, True),
        ({"training_accuracy": 1.0}, True),
    ],
)
def test_the_warning_starts_at_99_percent(values, said, caplog):
    assert SATURATED == 0.99
    assert warn_if_saturated(values, 7) is said
    assert len(caplog.records) == said
    if said:
        assert f"step 7: {100 * values['training_accuracy']:.2f} % of the training" in caplog.text
        assert "compare --ood_score abet,energy" in caplog.text


def test_a_run_is_warned_once(caplog):
    small = ["--pretrained_backbone", "none", "--crop_size", "40x56"]
    method = METHODS["supervised"](parse([*small, "--temperature", "learned"]), 3)
    for step, accuracy in enumerate((0.5, 0.995, 0.2, 0.999)):
        method.noticed({"loss": 1.0, "training_accuracy": accuracy}, step)
    assert [record.getMessage()[:6] for record in caplog.records] == ["step 1"]


@pytest.mark.parametrize("model", [(), ("--model", "ensemble", "--num_models", "2")])
def test_training_steps_log_it_for_every_network(labels, model):
    """The means over all members' maps, which the logits of a second pass give."""
    argv = ["--pretrained_backbone", "none", "--crop_size", "40x56", "--temperature", "learned"]
    argv += ["--head", "cosine", *model, *(("--backbone", "mobilenet") if model else ())]
    opts = parse(argv)
    torch.manual_seed(0)
    method = METHODS[opts.method](opts, 3).eval()
    image = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    label = torch.arange(2 * 40 * 56).view(2, 40, 56) % 3
    logs = method.training_step({"image": image, "label": label}, 0).logs
    with torch.no_grad():
        networks = list(method.members().values()) or [method.network]
        outputs = [network(image) for network in networks]
    maps = torch.stack([each.temperature for each in outputs])
    torch.testing.assert_close(logs["temperature"], maps.mean())
    torch.testing.assert_close(logs["temperature_min"], maps.min())
    torch.testing.assert_close(logs["temperature_max"], maps.max())
    hits = torch.stack([each.logits.argmax(1) == label for each in outputs]).float()
    torch.testing.assert_close(logs["training_accuracy"], hits.mean())
