"""Online ensembles: steps written by hand, the uncertainty they share, names, rates, mistakes."""

import copy

import pytest
import torch
from torch.amp import GradScaler
from torch.nn import functional as F

from engine.checkpoint import Training
from engine.train import autocast, optimizer_step
from methods import METHODS
from methods.ensemble import unique_names
from network.ensemble import DeepEnsemble
from options import parse
from uncertainty import instance_uncertainty
from utils.types import FEATURES

CLASSES = 5
SIZE = (40, 56)
TWO = ("--member", "deeplabv3plus_mobilenet", "--member", "deeplabv3_mobilenet")


def options(*argv):
    return parse(
        ["--pretrained_backbone", "none", "--crop_size", "40x56", "--model", "ensemble", *argv]
    )


def ensemble(*argv, seed=0):
    torch.manual_seed(seed)
    return METHODS["ensemble"](options(*argv), CLASSES)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(2):
        label = torch.randint(0, CLASSES, (2, *SIZE), generator=generator).to(torch.uint8)
        label[:, :5] = 255
        image = torch.randn(2, 3, *SIZE, generator=generator)
        made.append({"image": image, "label": label, "id": ["a", "b"]})
    return made


def training(method):
    optimizers = method.optimizers()
    scaler = GradScaler("cpu", init_scale=1.0, growth_interval=2**31 - 1)
    return Training(method, optimizers, method.schedules(optimizers), scaler)


def test_the_flag_model_selects_the_method_and_its_loss():
    chosen = options(*TWO)
    assert (chosen.method, chosen.loss_type) == ("ensemble", "uncertainty_cross_entropy")
    assert options(*TWO, "--loss_type", "cross_entropy").loss_type == "cross_entropy"


@pytest.mark.parametrize("loss", ["uncertainty_cross_entropy", "cross_entropy"])
def test_two_steps_are_those_written_by_hand(batches, loss):
    rates, total = (0.01, 0.002), 7
    # U is computed in float32; without it both sides are the same float64 arithmetic.
    tolerance = {"uncertainty_cross_entropy": 1e-5, "cross_entropy": 1e-10}[loss]
    method = ensemble(
        *TWO, "--loss_type", loss, "--total_itrs", str(total), "--optimizer", "sgd",
        "--backbone_lr_factor", "0.1",
        "--ensemble_lr", str(rates[0]), "--ensemble_lr", str(rates[1]),
    )  # fmt: skip
    method = method.double()  # batch norms of a few values amplify rounding
    batches = [{**batch, "image": batch["image"].double()} for batch in batches]
    twins = [copy.deepcopy(member) for member in method.members().values()]
    run = training(method)
    method.train()
    for batch in batches:
        torch.manual_seed(run.step)
        optimizer_step(method, [batch], run, autocast(torch.device("cpu"), "off"))
        run.step += 1

    optimizers = [
        torch.optim.SGD(
            [{"params": twin.backbone.parameters()}, {"params": twin.classifier.parameters()}],
            lr=rate,
            momentum=0.9,
            weight_decay=1e-4,
        )
        for twin, rate in zip(twins, rates, strict=True)
    ]
    for step, batch in enumerate(batches):
        torch.manual_seed(step)
        logits = [twin.train()(batch["image"]).logits for twin in twins]
        mean = sum(each.detach().softmax(1) for each in logits) / 2
        factor = 1.0
        if loss == "uncertainty_cross_entropy":
            factor = (1 + instance_uncertainty((mean + 1e-12).log())) ** 2
        decay = (1 - step / total) ** 0.9
        for each, optimizer, rate in zip(logits, optimizers, rates, strict=True):
            backbone, head = optimizer.param_groups
            backbone["lr"], head["lr"] = 0.1 * rate * decay, rate * decay
            pixels = F.cross_entropy(
                each, batch["label"].long(), ignore_index=255, reduction="none"
            )
            optimizer.zero_grad()
            if loss == "cross_entropy":
                value = pixels.sum() / (batch["label"] != 255).sum()
            else:
                value = (factor * pixels).mean()
            value.backward()
            optimizer.step()
    for member, twin in zip(method.members().values(), twins, strict=True):
        for (name, mine), theirs in zip(
            member.state_dict().items(), twin.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(
                mine, theirs, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_the_uncertainty_weighs_the_losses_and_gets_no_gradient(batches):
    method = ensemble(*TWO).eval()
    out = method.training_step(batches[0], 0)
    with torch.no_grad():
        logits = [member(batches[0]["image"]).logits for member in method.members().values()]
    mean = (logits[0].softmax(1) + logits[1].softmax(1)) / 2
    uncertainty = instance_uncertainty(mean.log())
    torch.testing.assert_close(out.logs["uncertainty"], uncertainty.mean())
    for each, loss in zip(logits, out.losses.values(), strict=True):
        pixels = F.cross_entropy(
            each, batches[0]["label"].long(), ignore_index=255, reduction="none"
        )
        torch.testing.assert_close(loss, ((1 + uncertainty) ** 2 * pixels).mean())
    first, second = method.members().values()
    out.losses[method.names[0]].backward()
    assert all(p.grad is None for p in second.parameters())
    assert any(p.grad is not None for p in first.parameters())


def test_uce_of_an_ensemble_weighs_by_the_deviation_over_members(batches):
    method = ensemble(*TWO, "--loss_type", "uce", "--alpha", "3").eval()
    out = method.training_step(batches[0], 0)
    with torch.no_grad():
        logits = [member(batches[0]["image"]).logits for member in method.members().values()]
    probabilities = torch.stack(logits).softmax(2)
    top = probabilities.mean(0).argmax(1, keepdim=True)
    sigma = probabilities.std(0).gather(1, top).squeeze(1)
    pixels = F.cross_entropy(
        logits[0], batches[0]["label"].long(), ignore_index=255, reduction="none"
    )
    torch.testing.assert_close(out.losses[method.names[0]], ((1 + sigma) ** 3 * pixels).mean())


@torch.no_grad()
def test_the_prediction_holds_every_member(batches):
    method = ensemble(*TWO).eval()
    prediction = method.predict(batches[0]["image"], frozenset({FEATURES}))
    own = [member(batches[0]["image"]).logits for member in method.members().values()]
    assert torch.equal(prediction.member_logits, torch.stack(own))
    mean = torch.stack(own).softmax(2).mean(0)
    torch.testing.assert_close(prediction.logits.softmax(1), mean, rtol=0, atol=1e-6)
    assert prediction.features.shape == (2, 320 + 320)
    assert isinstance(method.deployable(), DeepEnsemble)


def test_rates_default_to_lr_and_members_of_one_model_are_numbered():
    method = ensemble("--num_models", "3", "--backbone", "mobilenet", "--lr", "0.01")
    assert method.names == tuple(f"deeplabv3plus_mobilenet-{number}" for number in (1, 2, 3))
    assert [o.param_groups[1]["lr"] for o in method.optimizers().values()] == [0.01] * 3
    first, second, _ = method.members().values()
    ends = [member.classifier.classifier[-1].weight for member in (first, second)]
    assert not torch.equal(*ends)
    assert unique_names(["a", "b", "a"]) == ["a-1", "b", "a-3"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "--model ensemble needs members: --member"),
        (("--num_models", "2", "--backbone", "vgg"), "--backbone vgg names no model"),
        ((*TWO, "--ensemble_lr", "1"), "--ensemble_lr is given 1 times for 2 members"),
        ((*TWO, "--num_models", "3"), "--num_models 3, but --member is given 2 times"),
        ((*TWO, "--method", "supervised"), "--member needs --method ensemble"),
        (("--method", "supervised"), "go together, not with"),
        (("--member", "resnet"), "no model is called 'resnet'"),
    ],
)
def test_mistakes_are_one_sentence(argv, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        options(*argv)
    assert message in capsys.readouterr().err


ALIKE = ("--member", "deeplabv3plus_mobilenet", "--member", "deeplabv3plus_mobilenet")


@pytest.mark.parametrize("at_stride", [False, True])
def test_second_heads_of_members_stay_apart(batches, at_stride):
    method = ensemble(*ALIKE, "--aux_head").eval()
    images = batches[0]["image"]
    with torch.no_grad():
        found = method.predict(images, at_stride=at_stride)
        outputs = [member(images, at_stride=at_stride) for member in method.network.members]
    size = (10, 14) if at_stride else SIZE
    assert found.member_aux_logits.shape == (2, 2, CLASSES, *size)
    for place, output in enumerate(outputs):
        assert torch.equal(found.member_logits[place], output.logits)
        assert torch.equal(found.member_aux_logits[place], output.aux_logits)
    assert found.aux_logits is found.main_logits is None


def test_members_of_other_resolution_are_not_averaged_before_upsampling(batches):
    method = ensemble(*TWO).eval()
    with torch.no_grad(), pytest.raises(ValueError, match="heads give 3x4 and 10x14 pixels: leave"):
        method.predict(batches[0]["image"], at_stride=True)


def test_members_with_and_without_a_second_head_are_refused(batches):
    method = ensemble(*ALIKE, "--aux_head").eval()
    method.network.members[1].aux_classifier = None
    message = "deeplabv3plus_mobilenet-2 has none.*with --aux_head, or members without"
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        method.predict(batches[0]["image"])
