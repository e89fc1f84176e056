"""Local temperature scaling as a method: gradients by hand, the frozen network, the kept logits."""

import copy
from argparse import Namespace
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from engine import checkpoint
from engine.checkpoint import method_state
from engine.train import optimizer_step, start
from methods import METHODS, Method
from methods.local_temperature import LocalTemperatureScaling, LogitStore
from uncertainty.calibrators import LocalTemperatureHead
from utils.types import Prediction

CPU = torch.device("cpu")
NUM_CLASSES = 4
SIZE = (9, 11)


class Segmenter(Method):
    """A network whose batch norm and dropout would tell if it were in training mode."""

    def __init__(self, opts=None):
        super().__init__(opts or Namespace(), NUM_CLASSES)
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Sequential(
            nn.Conv2d(3, NUM_CLASSES, 1), nn.BatchNorm2d(NUM_CLASSES), nn.Dropout(0.5)
        )
        with torch.no_grad():
            for parameter in self.network[0].parameters():
                parameter.normal_(std=3, generator=generator)
        self.seen = 0

    def predict(self, images, needs=frozenset()):
        self.seen += len(images)
        return Prediction(self.network(images))

    def deployable(self):
        return self.network


def options(**changes):
    values = {
        "accumulate": 4,
        "batch_size": 4,
        "amp": "off",
        "ema": None,
        "lr_batch_size": None,
        "lr": 1e-2,
        "weight_decay": 0.0,
        "random_seed": 3,
        "lts_reads": "both",
        "lts_init_t": 2.0,
        "lts_init": "zero",
        "lts_floor": "original",
        "lts_cache_gb": 1.0,
    }
    return Namespace(**{**values, **changes})


def scaling(segmenter=None, **changes):
    return LocalTemperatureScaling(options(**changes), NUM_CLASSES, segmenter or Segmenter())


def one_image(number, *, void=False):
    """A micro-batch of one normalised image; the number of its void pixels differs."""
    generator = torch.Generator().manual_seed(number)
    label = torch.randint(0, NUM_CLASSES, (1, *SIZE), generator=generator).to(torch.uint8)
    label[:, : 9 if void else number % 4] = 255
    image = torch.rand(1, 3, *SIZE, generator=generator)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return {"image": (image - mean) / std, "label": label, "id": [f"image{number}"]}


def plain(batch):
    """The image in [0, 1]."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return batch["image"] * std + mean


def train_steps(method, steps, first=0):
    training = start(method, method.opts, CPU)
    method.train()
    for step in range(steps):
        batches = [one_image(first + 4 * step + index) for index in range(4)]
        optimizer_step(method, batches, training, nullcontext())
    return training


def test_the_published_start_divides_the_logits_by_two():
    method, batch = scaling(), one_image(1)
    logits = method.uncalibrated(batch).logits
    torch.testing.assert_close(method.calibrated(batch).logits, logits / 2, rtol=1e-6, atol=0)
    out = method.training_step(batch, 0)
    expected = 4 * F.cross_entropy(logits / 2, batch["label"].long(), ignore_index=255)
    torch.testing.assert_close(out.losses["head"], expected)
    assert out.logs["temperature"].item() == pytest.approx(2)


def test_gradients_are_summed_over_the_images_of_a_step():
    method = scaling(lts_init="random")
    batches = [one_image(number) for number in range(4)]
    twin = copy.deepcopy(method.head)
    for batch in batches:  # one after the other, as the published program does
        logits = method.uncalibrated(batch).logits
        F.cross_entropy(
            logits / twin(logits, plain(batch)), batch["label"].long(), ignore_index=255
        ).backward()
    training = start(method, method.opts, CPU)
    optimizer_step(method, batches, training, nullcontext())
    for ours, theirs in zip(method.head.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)
    adam = torch.optim.Adam(twin.parameters(), lr=1e-2)
    adam.step()
    for ours, theirs in zip(method.head.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_images_in_one_micro_batch_count_as_single_ones():
    first, second = one_image(1), one_image(2)
    together = {key: torch.cat([first[key], second[key]]) for key in ("image", "label")}
    together["id"] = first["id"] + second["id"]
    joined = scaling(accumulate=1).training_step(together, 0).losses["head"]
    single = scaling(accumulate=1)
    parts = [single.training_step(batch, 0).losses["head"] for batch in (first, second)]
    torch.testing.assert_close(joined, sum(parts))


def test_the_network_stays_as_it_is_and_the_head_learns():
    segmenter = Segmenter()
    before = copy.deepcopy(segmenter.state_dict())
    method = scaling(segmenter)
    head = copy.deepcopy(method.head.state_dict())
    train_steps(method, 3)
    assert not any(module.training for module in segmenter.modules())
    assert before.keys() == segmenter.state_dict().keys()
    for name, value in segmenter.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in segmenter.parameters())
    after = method.head.state_dict()
    assert all(not torch.equal(head[name], after[name]) for name in head)


def test_a_checkpoint_holds_the_head_alone(tmp_path):
    method = scaling()
    training = train_steps(method, 2)
    assert method_state(method) == {}
    path = tmp_path / "latest.pth"
    checkpoint.save([path], training, opts=method.opts, classes=(), sampler={})
    content = checkpoint.read(path)
    assert set(content["model_state"]) == {
        *("maps.weight", "maps.bias", "image_map.weight", "image_map.bias")
    }
    other = scaling()
    resumed = start(other, other.opts, CPU)
    checkpoint.resume(content, path, resumed)
    for ours, theirs in zip(method.head.parameters(), other.head.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_learning_rate_is_constant_and_adam_is_the_published_one():
    method = scaling()
    training = train_steps(method, 3)
    group = training.optimizers["head"].param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-2, 0.0, (0.9, 0.999))
    assert training.schedules["head"].get_last_lr() == [1e-2]


def test_redundant_maps_stay_tied_under_zero_weights():
    method = scaling()
    train_steps(method, 4)
    weight = method.head.maps.weight
    for other in weight[1:4]:  # c1 to c4
        torch.testing.assert_close(other, weight[0])
    assert weight[4:7].abs().max() < 1e-6  # g1 to g3
    assert min(weight[0].abs().max(), weight[7].abs().max()) > 1e-3


def test_random_weights_undo_the_tie():
    method = scaling(lts_init="random")
    train_steps(method, 4)
    weight = method.head.maps.weight
    assert (weight[1] - weight[0]).abs().max() > 1e-4
    assert weight[4:7].abs().max() > 1e-4


def test_an_image_without_labels_adds_nothing():
    method = scaling(lts_init="random")
    void = one_image(7, void=True)
    loss = method.training_step(void, 0).losses["head"]
    loss.backward()
    assert loss == 0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in method.head.parameters())
    training = start(method, method.opts, CPU)
    optimizer_step(method, [one_image(0), void, one_image(1), void], training, nullcontext())
    assert all(torch.isfinite(p).all() for p in method.head.parameters())


def test_predictions_keep_their_class_and_are_those_of_the_calibrator():
    method = scaling(lts_init="random")
    train_steps(method, 5)
    batch = one_image(20)
    raw, ours = method.segment(batch["image"]).logits, method.predict(batch["image"]).logits
    temperature = method.head(raw, plain(batch).clamp(0, 1))
    torch.testing.assert_close(ours, raw / temperature)
    assert torch.equal(ours.argmax(1), raw.argmax(1))


def test_logits_are_computed_once_for_each_image():
    segmenter = Segmenter()
    method = scaling(segmenter)
    for _ in range(3):
        for number in range(4):
            method.frozen_logits(one_image(number))
    assert segmenter.seen == 4


def test_a_full_store_computes_again_and_gives_the_same():
    bytes_of_one = NUM_CLASSES * SIZE[0] * SIZE[1] * 2
    segmenter = Segmenter()
    short = scaling(segmenter, lts_cache_gb=2.5 * bytes_of_one / 1e9)
    logits = [short.frozen_logits(one_image(n)) for n in (0, 1, 2, 0, 1, 2)]
    assert segmenter.seen == 4
    assert len(short.store.kept) == 2
    assert all(torch.equal(logits[n], logits[n + 3]) for n in range(3))
    without = scaling(lts_cache_gb=0.0)
    assert torch.equal(without.frozen_logits(one_image(1)), logits[1])


def test_autocast_of_the_training_does_not_reach_the_network():
    exact = scaling(lts_cache_gb=0.0).frozen_logits(one_image(1))
    with torch.autocast("cpu", torch.bfloat16):
        method = scaling(lts_cache_gb=0.0)
        assert torch.equal(method.frozen_logits(one_image(1)), exact)
        loss = method.training_step(one_image(1), 0).losses["head"]
    expected = method.training_step(one_image(1), 0).losses["head"]
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)


def test_kept_logits_are_half_floats_within_their_range():
    store = LogitStore(1.0)
    method = scaling()
    method.segment = lambda images, needs=frozenset(): Prediction(
        torch.full((1, NUM_CLASSES, *SIZE), 1e6)
    )
    logits = method.frozen_logits(one_image(0))
    assert torch.isfinite(logits).all()
    store.add("image", logits[0].half())
    assert store.get("image", CPU).dtype == torch.float16
    assert store.get("other", CPU) is None


def test_flags_reach_the_head():
    method = scaling(lts_reads="image", lts_init_t=1.0, lts_init="random", lts_floor="clamp")
    assert (
        method.head.settings()
        == LocalTemperatureHead(
            NUM_CLASSES, reads="image", init_t=1.0, init="random", floor="clamp", seed=3
        ).settings()
    )


def test_without_a_network_the_right_flags_are_named():
    assert METHODS["local_temperature"] is LocalTemperatureScaling
    with pytest.raises(ValueError, match="fit with --fit_calibrator local"):
        LocalTemperatureScaling(options(), NUM_CLASSES)
    (problem,) = LocalTemperatureScaling.check(Namespace(fit_calibrator=None))
    assert "--calibrator" in problem
    assert list(LocalTemperatureScaling.check(Namespace(fit_calibrator="local"))) == []


@pytest.mark.gpu
def test_kept_logits_and_a_step_on_the_gpu_equal_those_on_the_cpu():
    cpu = scaling(lts_init="random")
    cuda = scaling(lts_init="random").to("cuda")
    batches = [one_image(number) for number in range(4)]
    moved = [{k: v if k == "id" else v.cuda() for k, v in batch.items()} for batch in batches]
    for method, stream in ((cpu, batches), (cuda, moved)):
        device = next(method.head.parameters()).device
        for _ in range(2):
            optimizer_step(method, stream, start(method, method.opts, device), nullcontext())
    assert all(kept.is_pinned() for kept in cuda.store.kept.values())
    for ours, theirs in zip(cuda.head.parameters(), cpu.head.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-5)
