from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datasets.taxonomy import ClassMapping
from engine.batch import prepare
from engine.evaluate import (
    PredictionSource,
    map_labels,
    map_prediction,
    merge,
    resize,
    run_pass,
)
from engine.memory import MemoryShortageError
from metrics.segmentation import SegmentationMetrics
from uncertainty.calibrators import Temperature
from utils.types import FEATURES, ForwardVariant, Prediction

CLASSES = ("road", "car", "sky", "rider")
on_cpu = partial(prepare, device=torch.device("cpu"))


class Network(nn.Module):
    """A 1x1 convolution whose calls are counted; features on request."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, len(CLASSES), 1)
        self.norm = nn.BatchNorm2d(len(CLASSES))
        self.norm.requires_grad_(False)
        self.calls = []

    def forward(self, images, needs=frozenset()):
        self.calls.append(needs)
        logits = self.norm(self.layer(images))
        return Prediction(logits, features=logits.mean((2, 3)) if FEATURES in needs else None)


class Recorder:
    """Keeps what it is given."""

    def __init__(self, needs=(), variant=None, name="recorder"):
        self.needs = frozenset(needs)
        self.variant = variant
        self.name = name
        self.seen = []
        self.reduced = 0

    def update(self, batch, prediction):
        self.seen.append((batch, prediction))

    def all_reduce(self):
        self.reduced += 1

    def compute(self):
        assert self.reduced == 1
        return {"total": {self.name: len(self.seen)}}


def batches(*counts, labelled=True, size=(6, 8)):
    """Batches with so many images each."""
    generator = torch.Generator().manual_seed(0)
    for number, count in enumerate(counts):
        batch = {
            "image": torch.randint(
                0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator
            ),
            "id": [f"{number}_{index}" for index in range(count)],
        }
        if labelled:
            batch["label"] = torch.randint(
                0, len(CLASSES), (count, *size), dtype=torch.uint8, generator=generator
            )
        yield batch


def one_by_one(parts):
    for part in parts:
        for index, name in enumerate(part["id"]):
            yield {
                "image": part["image"][index : index + 1],
                "label": part["label"][index : index + 1],
                "id": [name],
            }


@pytest.fixture
def network():
    return Network()


def evaluate(network, loader, *consumers, **kwargs):
    return run_pass(network, network, loader, consumers, prepare=on_cpu, **kwargs)


def clipped(predict, network, images):
    return predict(images.clamp(max=0.5))


def perturbed(predict, network, images):
    """A step against the gradient of the largest logit, as in ODIN."""
    with torch.enable_grad():
        moved = images.clone().requires_grad_()
        score = predict(moved).logits.max(1).values.sum()
    (gradient,) = torch.autograd.grad(score, moved)
    return predict(images - 0.1 * gradient.sign())


def test_a_consumer_sees_every_batch_in_order_without_gradients(network):
    recorder = Recorder()
    assert evaluate(network, batches(2, 1, 3), recorder) == {"total": {"recorder": 3}}
    for (batch, prediction), raw in zip(recorder.seen, batches(2, 1, 3), strict=True):
        assert batch["id"] == raw["id"]
        assert torch.equal(batch["label"], raw["label"])
        assert not prediction.logits.requires_grad
    assert network.layer.weight.grad is None


def test_each_distinct_variant_runs_once_per_batch(network):
    calls = []

    def counted(predict, network, images):
        calls.append(len(images))
        return clipped(predict, network, images)

    first = Recorder(variant=ForwardVariant("clipped", counted), name="first")
    second = Recorder(variant=ForwardVariant("clipped", counted), name="second")
    plain = [Recorder(name="third"), Recorder(name="fourth")]
    found = evaluate(network, batches(2, 1), first, plain[0], second, plain[1])
    assert found == {"total": {"first": 2, "second": 2, "third": 2, "fourth": 2}}
    assert calls == [2, 1]
    assert len(network.calls) == 4  # two variants (clipped, plain), two batches
    assert first.seen[0][1].logits is second.seen[0][1].logits
    assert not torch.equal(first.seen[0][1].logits, plain[0].seen[0][1].logits)


def test_without_plain_readers_there_is_no_plain_pass(network):
    evaluate(network, batches(2), Recorder(variant=ForwardVariant("clipped", clipped)))
    assert len(network.calls) == 1


def test_a_variant_with_input_gradients_works_inside_the_pass(network):
    odin = Recorder(variant=ForwardVariant("odin", perturbed), name="odin")
    plain = Recorder(name="plain")
    evaluate(network, batches(2), odin, plain)
    found, before = odin.seen[0][1].logits, plain.seen[0][1].logits
    assert not found.requires_grad
    assert found.max(1).values.sum() < before.max(1).values.sum()
    assert network.layer.weight.grad is None


def test_needs_are_united_per_variant(network):
    variant = ForwardVariant("clipped", clipped)
    with_features, without = Recorder([FEATURES], name="a"), Recorder(name="b")
    evaluate(network, batches(2), with_features, without, Recorder(variant=variant, name="c"))
    assert network.calls == [frozenset({FEATURES}), frozenset()]
    assert with_features.seen[0][1].features.shape == (2, len(CLASSES))
    network.calls.clear()
    in_variant = Recorder([FEATURES], variant)
    evaluate(network, batches(2), in_variant)
    assert network.calls == [frozenset({FEATURES})]
    assert in_variant.seen[0][1].features is not None


def test_a_need_that_the_model_cannot_meet_is_named(network):
    with pytest.raises(ValueError, match="Recorder needs temperature, which this model"):
        evaluate(network, batches(2), Recorder(["temperature"]))


def test_the_network_is_in_evaluation_mode_and_gets_its_modes_back(network):
    network.norm.eval()
    network.train(False)
    network.layer.train()
    before = network.norm.running_mean.clone()
    evaluate(network, batches(2), Recorder())
    assert torch.equal(network.norm.running_mean, before)
    assert [m.training for m in (network, network.layer, network.norm)] == [False, True, False]


def test_predictions_are_resized_to_the_label(network):
    def predict(images, needs=frozenset()):
        small = F.interpolate(network(images).logits, size=(3, 4))
        return Prediction(small, torch.stack([small, 2 * small]), small[:, :1], None, 3 * small)

    recorder = Recorder()
    run_pass(predict, network, batches(2), [recorder], prepare=on_cpu)
    batch, found = recorder.seen[0]
    small = F.interpolate(network.eval()(batch["image"]).logits, size=(3, 4))
    large = F.interpolate(small, size=(6, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.logits, large)
    torch.testing.assert_close(found.member_logits, torch.stack([large, 2 * large]))
    torch.testing.assert_close(found.temperature, large[:, :1])
    torch.testing.assert_close(found.aux_logits, 3 * large)


def test_a_prediction_of_the_right_size_is_passed_on(network):
    prediction = Prediction(torch.zeros(1, 4, 6, 8))
    assert resize(prediction, (6, 8)) is prediction


def test_batches_without_labels_are_predicted_at_their_own_size(network):
    recorder = Recorder()
    evaluate(network, batches(1, labelled=False, size=(5, 7)), recorder)
    assert recorder.seen[0][1].logits.shape == (1, 4, 5, 7)
    assert "label" not in recorder.seen[0][0]


def test_the_calibrator_changes_what_every_consumer_sees(network):
    halved, plain = Recorder(), Recorder()
    evaluate(network, batches(2), halved, calibrator=Temperature(2.0, len(CLASSES)))
    evaluate(network, batches(2), plain)
    assert torch.equal(halved.seen[0][1].logits, plain.seen[0][1].logits / 2)


class Stored(PredictionSource):
    """Predictions that follow from the images' ids."""

    def of_batch(self, batch):
        values = torch.tensor([float(len(name)) for name in batch["id"]])
        return Prediction(values.view(-1, 1, 1, 1).expand(-1, len(CLASSES), 3, 4))


def test_predictions_may_come_from_elsewhere_and_are_resized(network):
    recorder = Recorder()
    run_pass(Stored(), network, batches(2), [recorder], prepare=lambda batch: batch)
    batch, prediction = recorder.seen[0]
    assert prediction.logits.shape == (2, len(CLASSES), *batch["label"].shape[1:])
    assert prediction.logits[0, 0, 0, 0] == len(batch["id"][0])


def test_what_runs_the_network_cannot_read_predictions_from_elsewhere(network):
    recorder = Recorder()
    recorder.variant = ForwardVariant("clipped", lambda predict, network, images: predict(images))
    with pytest.raises(ValueError, match="clipped runs the network"):
        run_pass(Stored(), network, batches(1), [recorder], prepare=lambda batch: batch)


def test_batch_size_does_not_change_the_metrics(network):
    found = evaluate(network, batches(4, 2, 3), SegmentationMetrics(CLASSES))
    single = evaluate(network, one_by_one(batches(4, 2, 3)), SegmentationMetrics(CLASSES))
    assert found == single
    assert found["total"]["pixels"] == 9 * 6 * 8


MAPPING = ClassMapping(("flat", "vehicle"), prediction=(0, 1, 255, 1), label=(1, 0, 0))


def test_labels_are_mapped_by_table_and_the_rest_is_void():
    labels = torch.tensor([[0, 1, 2, 3, 255]], dtype=torch.uint8)
    assert map_labels(labels, MAPPING).tolist() == [[1, 0, 0, 255, 255]]
    assert map_labels(labels, MAPPING).dtype == torch.uint8


def test_merged_classes_add_their_probabilities():
    logits = torch.randn(2, 4, 3, 5)
    members = torch.randn(3, 2, 4, 3, 5)
    temperature = torch.ones(2, 1, 3, 5)
    found = map_prediction(Prediction(logits, members, temperature, aux_logits=-logits), MAPPING)
    for mapped, original in (
        (found.logits, logits),
        (found.aux_logits, -logits),
        (found.member_logits, members),
    ):
        known = original.softmax(-3)[..., [0, 1, 3], :, :]  # class 2 has no counterpart
        known = known / known.sum(-3, keepdim=True)
        road, vehicle = known.select(-3, 0), known.select(-3, 1) + known.select(-3, 2)
        torch.testing.assert_close(mapped.softmax(-3), torch.stack([road, vehicle], -3))
    assert found.temperature is temperature


def test_the_pass_maps_both_sides(network):
    metric = SegmentationMetrics(MAPPING.names)
    recorder = Recorder()
    found = evaluate(network, batches(3), metric, recorder, mapping=MAPPING)
    batch, prediction = recorder.seen[0]
    assert prediction.logits.shape[1] == 2
    raw = next(batches(3))["label"]
    known = raw < 3
    assert ((batch["label"] == 255) == ~known).all()
    assert found["total"]["pixels"] == known.sum()
    hits = (prediction.logits.argmax(1) == batch["label"])[known].double().mean()
    assert found["total"]["overall_accuracy"] == pytest.approx(100 * hits.item())


def test_results_of_consumers_are_merged_and_never_overwritten():
    results = {"total": {"miou": 1}, "condition": {"fog": {"miou": 2}}}
    merge(results, {"total": {"ece": 3}, "condition": {"fog": {"ece": 4}}})
    assert results == {"total": {"miou": 1, "ece": 3}, "condition": {"fog": {"miou": 2, "ece": 4}}}
    with pytest.raises(AssertionError, match="miou"):
        merge(results, {"total": {"miou": 5}})


def test_out_of_memory_names_the_flags(network):
    def predict(images, needs=frozenset()):
        return Prediction(torch.empty(1 << 60))

    with pytest.raises(MemoryShortageError, match="--val_batch_size"):
        run_pass(predict, network, batches(1), [Recorder()], prepare=on_cpu)
