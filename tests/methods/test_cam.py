"""Training of activation maps: losses, what is frozen, rates, flags, and a run that learns."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from losses.image_labels import classification_loss
from methods import METHODS
from methods.cam import Cam
from options import parse
from tests.network.cam_toy import cam_network
from utils.types import FEATURES

TRAINED = ("--cam_norm", "trained", "--cam_frozen_stages", "0")


def options(*argv):
    fixed = ["--method", "cam", "--image_tags", "masks", "--pretrained_backbone", "none"]
    return parse([*fixed, *argv])


def method(*argv, background=0, **network):
    torch.manual_seed(0)
    return Cam(options(*argv), 3, cam_network(background=background, **network))


def scenes(count, generator, side=40):
    """Grey noise with a red square, a blue one or both, their labels and those of the image."""
    images = 0.22 * torch.randn(count, 3, side, side, generator=generator)
    labels = torch.zeros(count, side, side, dtype=torch.long)
    colours = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])
    shown = torch.randint(1, 4, (count,), generator=generator)
    for index in range(count):
        for number in (1, 2):
            if int(shown[index]) & number:
                size = int(torch.randint(10, 16, (1,), generator=generator))
                row, column = torch.randint(0, side - size, (2,), generator=generator).tolist()
                place = (slice(row, row + size), slice(column, column + size))
                images[index][:, *place] += colours[number - 1][:, None, None]
                labels[index][place] = number
    present = [(labels == number).flatten(1).any(1).float() for number in range(3)]
    return images, labels, torch.stack(present, 1)


def batch_of(count=2, seed=0):
    images, _, present = scenes(count, torch.Generator().manual_seed(seed))
    void = torch.full((count, 40, 40), 255, dtype=torch.uint8)
    return {"image": images, "label": void, "image_labels": present}


class Unread(dict):
    """A batch whose pixel labels must not be looked at."""

    def __getitem__(self, name):
        assert name != "label"
        return super().__getitem__(name)


@pytest.mark.parametrize("consistency", ["none", "seam"])
def test_a_step_reads_no_pixel_label_and_logs_its_parts(consistency):
    trained = method("--cam_consistency", consistency)
    out = trained.training_step(Unread(batch_of()), 0)
    names = {"classification"}
    if consistency == "seam":
        names |= {"background", "equivariance", "cross"}
    assert set(out.logs) == {f"loss_{name}" for name in names}
    assert not any(value.requires_grad for value in out.logs.values())
    torch.testing.assert_close(out.losses["network"].detach(), sum(out.logs.values()))


def test_without_consistency_it_is_the_classification_loss_of_one_view():
    trained = method("--cam_consistency", "none").train()
    batch = batch_of()
    images, labels = batch["image"], batch["image_labels"]
    raw = trained.network.maps(images, (40, 40)).raw
    expected = F.multilabel_soft_margin_loss(raw.mean((2, 3))[:, 1:], labels[:, 1:])
    torch.testing.assert_close(trained.training_step(batch, 0).losses["network"], expected)
    assert "network.correlation.joint.weight" not in trained.state_dict()


def test_the_second_view_is_a_smaller_copy_and_classification_their_mean():
    trained = method("--cam_view_scale", "0.45").train()
    batch = batch_of()
    images, labels = batch["image"], batch["image_labels"]
    smaller = F.interpolate(images, size=(18, 18), mode="bilinear", align_corners=True)
    expected = torch.stack(
        [
            classification_loss(trained.network.maps(view, view.shape[-2:]).raw, labels, 0)
            for view in (images, smaller)
        ]
    ).mean()
    logs = trained.training_step(batch, 0).logs
    torch.testing.assert_close(logs["loss_classification"], expected.detach())


def test_equal_views_are_equivariant():
    trained = method("--cam_view_scale", "1").train()
    logs = trained.training_step(batch_of(), 0).logs
    assert logs["loss_equivariance"] == 0
    assert logs["loss_cross"] > 0


def test_each_loss_reaches_the_layers_that_it_trains():
    trained = method(*TRAINED)
    reached = {}
    parts = trained.two_views(*(batch_of()[name] for name in ("image", "image_labels")))
    for name, part in parts.items():
        trained.zero_grad()
        part.backward(retain_graph=True)
        reached[name] = {
            parameter.split(".")[0]
            for parameter, value in trained.network.named_parameters()
            if value.grad is not None and value.grad.any()
        }
    assert reached == {
        "classification": {"backbone", "classifier"},
        "equivariance": {"backbone", "classifier"},
        "cross": {"correlation"},
        "background": {"correlation"},
    }


def test_without_a_background_class_nothing_is_pushed_to_be_one():
    trained = method(background=None)
    logs = trained.training_step(batch_of(), 0).logs
    assert set(logs) == {"loss_classification", "loss_equivariance", "loss_cross"}


def steps(trained, count, generator, size=8):
    """Train on that many batches of scenes."""
    optimizer = trained.optimizers()["network"]
    trained.train()
    for step in range(count):
        images, _, present = scenes(size, generator)
        optimizer.zero_grad()
        out = trained({"image": images, "image_labels": present}, step)
        out.losses["network"].backward()
        optimizer.step()


def test_frozen_norms_and_stages_stay_as_they_are_and_all_else_moves():
    trained = method("--lr", "0.05")
    trained.eval().train()
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    steps(trained, 2, torch.Generator().manual_seed(0))
    after = trained.network.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    convolutions = {f"backbone.{stage}.0" for stage in ("middle", "aux", "out")}
    expected = {f"{layer}.{kind}" for layer in convolutions for kind in ("weight", "bias")}
    expected |= {"classifier.weight", "correlation.joint.weight"}
    expected |= {f"correlation.sides.{name}.weight" for name in ("middle", "aux")}
    assert moved == expected


def test_trained_norms_follow_the_images_outside_frozen_stages():
    trained = method("--cam_norm", "trained", "--cam_frozen_stages", "2", "--lr", "0.05")
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    steps(trained, 1, torch.Generator().manual_seed(0))
    after = trained.network.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    stages = {name.split(".")[1] for name in moved if name.startswith("backbone.")}
    assert stages == {"aux", "out"}
    assert {"backbone.out.1.running_mean", "backbone.out.1.weight"} <= moved


def test_new_layers_learn_ten_times_faster_and_biases_twice_without_decay():
    trained = method("--lr", "0.02", "--weight_decay", "0.0005", "--cam_norm", "trained")
    optimizer = trained.optimizers()["network"]
    names = {id(value): name for name, value in trained.network.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            bias, new = name.endswith("bias"), not name.startswith("backbone.")
            assert group["lr"] == pytest.approx(0.02 * (10 if new else 1) * (2 if bias else 1))
            assert group["weight_decay"] == (0 if bias else 0.0005)
    assert {name.split(".")[1] for name in names.values()} == {"low_level"}
    assert len(optimizer.param_groups) == 3  # no new layer has a bias


def test_the_momentum_is_a_real_one_and_the_published_slip_can_be_typed():
    def groups(*argv):
        return method(*argv).optimizers()["network"].param_groups

    assert {group["momentum"] for group in groups()} == {0.9}
    published = groups("--momentum", "0.0005", "--lr", "0.02")
    assert {group["momentum"] for group in published} == {0.0005}
    assert published[0]["lr"] == 0.02
    assert type(method("--optimizer", "adamw").optimizers()["network"]).__name__ == "AdamW"


@pytest.mark.parametrize(("consistency", "least"), [("none", 0.55), ("seam", 0.6)])
def test_two_classes_are_told_apart_and_found_from_image_labels_alone(consistency, least):
    """Chance tells each class right in 2 of 3 images."""
    scale = ("--cam_view_scale", "0.5") if consistency == "seam" else ()
    flags = ("--cam_consistency", consistency, *TRAINED, *scale, "--lr", "0.02")
    trained = method(*flags, width=16)
    generator = torch.Generator().manual_seed(0)
    steps(trained, 60, generator)
    trained.eval()
    images, labels, present = scenes(64, generator)
    with torch.no_grad():
        told = trained.network.maps(images).raw.mean((2, 3))[:, 1:] > 0
        found = trained.predict(images).logits.argmax(1)
    accuracy = (told == present[:, 1:].bool()).float().mean()
    overlap = [
        float(((found == c) & (labels == c)).sum() / ((found == c) | (labels == c)).sum())
        for c in (1, 2)
    ]
    assert accuracy > 0.95
    assert min(overlap) > least


def test_prediction_has_logits_and_pooled_features_on_request():
    trained = method().eval()
    images = batch_of()["image"]
    with torch.no_grad():
        plain, pooled = (trained.predict(images, needs) for needs in (frozenset(), {FEATURES}))
        small = trained.predict(images, at_stride=True)
    assert plain.logits.shape == (2, 3, 40, 40)
    assert small.logits.shape == (2, 3, 10, 10)
    assert plain.features is None
    assert pooled.features.shape == (2, 8)
    assert trained.deployable() is trained.network


def test_it_reads_image_labels_and_validates_on_no_pixel_label():
    opts = options()
    assert [name for name, kind in METHODS.items() if kind.reads_image_labels(opts)] == ["cam"]
    assert opts.val_split == "none"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--model", "deeplabv3plus_mobilenet"], "has not: take --model cam_mobilenet or another"),
        (["--cam_consistency", "none", "--cam_view_scale", "0.5"], "--cam_view_scale is of the"),
        (
            ["--crop_size", "24x96", "--cam_view_scale", "0.3"],
            "a second view of 7 pixels of --crop",
        ),
        (["--backbone_lr_factor", "0.1"], "at 10 times that: leave --backbone_lr_factor out"),
        (["--loss_type", "focal_loss"], "has its own losses: leave --loss_type out"),
        (["--optimizer", "sgd", "--nesterov", "--lr_repeat", "faithful"], "of MRNet's backbone"),
        (["--head", "cosine"], "--head is of segmentation heads, which a cam_ model has not"),
    ],
)
def test_flags_without_effect_or_sense_are_refused(capsys, argv, expected):
    with pytest.raises(SystemExit):
        options(*argv)
    assert expected in capsys.readouterr().err


def test_flags_of_one_view_need_no_room_for_a_second():
    assert options("--cam_consistency", "none", "--crop_size", "24x24").method == "cam"


def test_the_flags_belong_to_the_method(capsys):
    with pytest.raises(SystemExit):
        parse(["--cam_norm", "trained"])
    assert "--cam_norm needs --method cam; this run is supervised" in capsys.readouterr().err


def test_more_frozen_stages_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"--cam_frozen_stages 5: the backbone .* has 4"):
        method("--cam_frozen_stages", "5")


@pytest.mark.parametrize(("flags", "warned"), [((), True), (TRAINED, False)])
def test_frozen_random_weights_are_warned_of(caplog, tmp_path, flags, warned):
    trained = method(*flags)
    with caplog.at_level(logging.WARNING, "segdoubt"):
        trained.prepare(SimpleNamespace(background=None), tmp_path)
    assert ("frozen parts of the backbone keep random weights" in caplog.text) == warned
    assert trained.network.background is None


def test_views_that_are_too_small_for_the_backbone_stop_before_the_first_step(tmp_path):
    trained = method(*TRAINED, "--crop_size", "40", "--cam_view_scale", "0.5")
    trained.network.backbone.smallest_input = 21
    with pytest.raises(ValueError, match="--cam_view_scale 0.5 has 20 pixels on a side.*needs 21"):
        trained.prepare(SimpleNamespace(background=None), tmp_path)
    trained.network.backbone.smallest_input = 20
    trained.prepare(SimpleNamespace(background=None), tmp_path)


@pytest.mark.parametrize(("dataset", "background"), [("voc", 0), ("streets", None)])
def test_the_network_knows_the_background_of_the_data_set(dataset, background):
    opts = options("--dataset", dataset, "--data_root", ".")
    assert Cam(opts, 3).network.background == background


@pytest.mark.gpu
@pytest.mark.parametrize("consistency", ["none", "seam"])
def test_a_step_on_a_gpu_is_that_of_the_cpu(monkeypatch, consistency):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    logs, states = [], []
    for device in ("cpu", "cuda"):
        trained = method("--cam_consistency", consistency, *TRAINED, "--lr", "0.01").to(device)
        optimizer = trained.train().optimizers()["network"]
        out = trained({name: value.to(device) for name, value in batch_of(4).items()}, 0)
        out.losses["network"].backward()
        optimizer.step()
        logs.append({name: value.cpu() for name, value in out.logs.items()})
        states.append({name: value.cpu() for name, value in trained.state_dict().items()})
    torch.testing.assert_close(logs[1], logs[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-4)
