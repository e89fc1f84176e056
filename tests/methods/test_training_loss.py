"""The loss of a step by the flags: epochs of relaxation, classes, what is refused."""

import math

import pytest
import torch
from torch.nn import functional as F

from losses import LossSettings, build_loss
from methods.training_loss import TrainingLoss
from options import parse
from utils.types import SegOutput

RELAXED = ("--loss_type", "relaxed_boundary")
CLASSES = 4


def loss(*argv, epoch_itrs=3, num_classes=CLASSES):
    opts = parse([*RELAXED, *argv])
    opts.epoch_itrs = epoch_itrs  # as a run counts them
    return TrainingLoss(opts, num_classes)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (2, 3, 3), generator=generator)
    labels = labels.repeat_interleave(3, 1).repeat_interleave(3, 2).to(torch.uint8)
    labels[0, :2] = 255
    return torch.randn(2, CLASSES, 9, 9, generator=generator), labels


@pytest.mark.parametrize(
    ("last", "relaxed"), [(-1, range(15)), (0, range(3)), (1, range(6)), (3, range(12))]
)
def test_borders_are_relaxed_up_to_and_with_an_epoch(last, relaxed):
    flags = () if last < 0 else ("--rlx_off_epoch", str(last))
    built = loss(*flags)
    assert [step for step in range(15) if built.relaxed(step)] == list(relaxed)


def test_the_step_decides_which_loss_it_is(batch):
    """Relaxed in epoch 1, by borders of the asked weight in epoch 2."""
    flags = ("--rlx_off_epoch", "1", "--strict_bdr_cls", "2,3", "--wt_bound", "3")
    built = loss(*flags, "--boundary_weight", "5", "--border_window", "2")
    settings = {"wt_bound": 3, "strict_classes": (2, 3), "boundary_weight": 5, "border_window": 2}
    values = []
    for step, relaxed in ((5, True), (6, False)):
        direct = build_loss("relaxed_boundary", LossSettings(**settings, relaxed=relaxed))
        values.append(built(*batch, step=step))
        assert torch.equal(values[-1], direct(*batch))
    assert values[0] < values[1]


def test_a_strict_class_has_to_exist():
    assert loss("--strict_bdr_cls", "0,3")
    with pytest.raises(ValueError, match=r"--strict_bdr_cls 4: .* has 4 classes, from 0 to 3"):
        loss("--strict_bdr_cls", "0,4")


def test_each_head_tells_by_its_own_loss_whether_it_fits(batch):
    """The factor of the second one comes after; the first is above beta, the second below."""
    first, labels = batch
    known = labels.long().clamp(max=CLASSES - 1)
    sure = 4.0 * F.one_hot(known, CLASSES).permute(0, 3, 1, 2).float()
    sure[:, :, 5] = first[:, :, 5]  # some pixels of high loss
    flags = ("--loss_type", "cross_entropy", "--underfit", "clamp", "--loss_normalize", "all")
    opts = parse([*flags, "--underfit_k", "0.7", "--lambda_seg", "0.4", "--aux_head"])
    plain, fitted = cross_entropy_means(first, labels), cross_entropy_means(sure, labels, 0.7)
    assert plain[0] > 0.5 > fitted[0]
    assert fitted[1] < fitted[0]
    found = TrainingLoss(opts, CLASSES).of_heads(SegOutput(first, sure), labels)
    torch.testing.assert_close(found, plain[0] + 0.4 * fitted[1])


def cross_entropy_means(logits, labels, limit=math.inf):
    """Over all pixels, of the losses and of those up to a limit."""
    losses = F.cross_entropy(logits, labels.long(), ignore_index=255, reduction="none")
    return losses.mean(), losses.clamp(max=limit).mean()


MISTAKES = {
    ("--underfit_beta", "0.8"): "--underfit_beta is of pretended under-fitting: add --underfit cla",
    ("--underfit_k", "0.8"): "--underfit_k is of pretended under-fitting: add --underfit clamp",
    (*RELAXED, "--underfit", "clamp"): "of which relaxed_boundary is no mean: it goes with cross_",
    ("--underfit", "cut"): "--underfit: invalid choice: 'cut'",
    ("--underfit", "clamp", "--underfit_k", "-1"): "--underfit_k: -1 is outside 0..100",
    ("--underfit", "clamp", "--method", "mrnet"): "--underfit goes with --method supervised or ens",
    ("--lr_policy", "scl_poly"): "--lr_policy scl_poly restarts at an epoch: add --rlx_off_epoch N",
    ("--lr_policy", "scl_poly", "--rlx_off_epoch", "0"): "add --rlx_off_epoch N, such as 100",
    ("--strict_bdr_cls", "3"): "--strict_bdr_cls goes with --loss_type relaxed_boundary",
    ("--border_window", "2"): "--border_window goes with --loss_type relaxed_boundary",
    ("--boundary_weight", "2"): "--boundary_weight goes with --loss_type relaxed_boundary",
    ("--wt_bound", "2"): "--loss_type image_weighted_cross_entropy or relaxed_boundary, not cross",
    ("--loss_reduction", "sum"): "--loss_reduction goes with --loss_type image_weighted",
    (*RELAXED, "--batch_weighting"): "--batch_weighting goes with --loss_type image_weighted",
    (*RELAXED, "--strict_bdr_cls", "-1"): "'-1' is no list of ids: write 5,6,7",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_sentence(capsys, arguments):
    with pytest.raises(SystemExit):
        parse(list(arguments))
    said = capsys.readouterr().err
    assert MISTAKES[arguments] in said
    assert said.count("\n") == 1
