"""Relaxed boundary targets and loss against the published way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio
from losses.cross_entropy import cross_entropy
from losses.relaxed_boundary import relaxed_boundary_loss, relaxed_target
from utils.types import IGNORE_INDEX

TARGETS = {19: 10.0, 65: 3.0}  # of Cityscapes and Mapillary Vistas: times faster
STRICT = (5, 6, 7, 11, 12, 17, 18)
SIZE, QUICK_SIZE = 896, 64  # the crop of AbeT
BLOCK = 32  # side of the squares of one class
VOID = 0.05  # share of the squares
LOSS_TARGET = 1.25  # times faster
TOLERANCE = 1e-5  # relative
MEGABYTE = 1e6

METHOD = """\
One crop of 896x896 in squares of one class, 5 % void, strict classes as AbeT's. The yardstick is
the published code's way, written from its description. `target`: nine shifts of the label by
`scipy.ndimage.shift` with its cubic splines, a one-hot map of C + 1 bytes a pixel for each, their
union, on the CPU, then the map goes to the device; ours sends the label and takes
`relaxed_target` there. Targets are equal, which is checked first. `loss`: forward and backward pass
from logits and target (ours: and label); the yardstick counts classes on the host and takes the
softmax, the maximum with the set's probability and its logarithm; beside it `cross_entropy`. Losses
and gradients agree to 1e-5. `kept` is what a forward pass keeps for the backward pass beside the
logits, `sent` what goes to the device."""


def run(settings: Settings) -> Section:
    """The target for either number of classes, then the loss."""
    section = Section("Relaxed boundary loss", METHOD)
    targets: list[Row] = []
    losses: list[Row] = []
    for num_classes in (19,) if settings.quick else TARGETS:
        label, logits = maps(num_classes, settings)
        check_equal(label, logits)
        built = measure_target(label, num_classes, settings)
        targets.append(target_row(label, num_classes, built))
        faster = ratio(built["published way"], built["ours"])
        what = f"relaxed target of {num_classes} classes, times faster than the published way"
        section.targets.append(Target(what, faster.median, TARGETS[num_classes], at_most=False))
        passes = loss_passes(label, logits)
        samples = interleave(passes, repeats=settings.rounds(7), device=settings.device)
        losses.append(loss_row(num_classes, samples, logits, passes))
        faster = ratio(samples["published way"], samples["ours"])
        what = f"relaxed loss of {num_classes} classes, times faster than the published way"
        section.targets.append(Target(what, faster.median, LOSS_TARGET, at_most=False))
    section.tables.append(Table("`target`, milliseconds per crop:", targets))
    section.tables.append(Table("`loss`, milliseconds per crop:", losses))
    return section


def maps(num_classes: int, settings: Settings) -> tuple[Tensor, Tensor]:
    """A label (1, H, W), uint8 on the host, and logits (1, C, H, W) on the device."""
    side = QUICK_SIZE if settings.quick else SIZE
    generator = torch.Generator().manual_seed(0)
    squares = torch.randint(0, num_classes, (side // BLOCK,) * 2, generator=generator)
    void = torch.rand(squares.shape, generator=generator) < VOID
    label = squares.masked_fill(void, IGNORE_INDEX).to(torch.uint8)
    logits = 3 * torch.randn(1, num_classes, side, side, generator=generator)
    whole = label.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[None]
    return whole, logits.to(settings.device).requires_grad_()


def one_hot(classes: NDArray[np.uint8], planes: int) -> NDArray[np.uint8]:
    """The map (H, W, planes) that is 1 at the class of each pixel."""
    flat = np.zeros((classes.size, planes), np.uint8)
    flat[np.arange(classes.size), classes.ravel()] = 1
    return flat.reshape(*classes.shape, planes)


def published_target(label: Tensor, num_classes: int, device: torch.device) -> Tensor:
    """Target (1, C + 1, H, W), uint8, of a label (1, H, W), shift by shift."""
    classes = label[0].numpy().copy()
    classes[classes == IGNORE_INDEX] = num_classes
    strict = np.isin(classes, STRICT)
    union = np.zeros((*classes.shape, num_classes + 1), np.uint8)
    for offset in product((-1, 0, 1), repeat=2):
        union += one_hot(ndimage.shift(classes, offset, cval=num_classes), num_classes + 1)
    union[union > 1] = 1
    union = np.where(strict[..., None], one_hot(classes, num_classes + 1), union)
    planes = np.ascontiguousarray(np.moveaxis(union, -1, 0))
    return torch.from_numpy(planes)[None].to(device)


def our_target(label: Tensor, num_classes: int, device: torch.device) -> Tensor:
    """The same as bool, built on the device."""
    return relaxed_target(label.to(device), num_classes, strict_classes=STRICT)


def published_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Relaxed loss of one image in probabilities, its class weights counted on the host."""
    counts = target[0].cpu().numpy().sum((1, 2))
    share = counts / counts.sum()
    weights = torch.from_numpy(np.where(share > 0, 2 - share, 1)[:-1]).to(logits)
    members = target[:, :-1].float()
    size = members.sum(1)
    ignored = size == 0
    size[ignored] = 1
    probabilities = logits.softmax(1)
    of_set = members * (probabilities * members).sum(1, keepdim=True)
    log_q = torch.log(torch.max(probabilities, of_set))
    pixels = -1 / size * (members * weights[:, None, None] * log_q).sum(1) * ~ignored
    return pixels.sum() / (ignored.numel() - ignored.sum().item() + 1)


def check_equal(label: Tensor, logits: Tensor) -> None:
    """Assert that both ways give the same target, loss and gradient."""
    num_classes = logits.shape[1]
    published = published_target(label, num_classes, logits.device)
    assert (published == our_target(label, num_classes, logits.device)).all(), "targets disagree"
    theirs = published_loss(logits, published)
    ours = relaxed_boundary_loss(logits, label.to(logits.device), strict_classes=STRICT)
    pairs = [(theirs, ours)]
    pairs.append((torch.autograd.grad(theirs, logits)[0], torch.autograd.grad(ours, logits)[0]))
    for one, other in pairs:
        difference = (one - other).abs().max() / one.abs().max()
        assert difference < TOLERANCE, "losses disagree"


def measure_target(label: Tensor, num_classes: int, settings: Settings) -> dict[str, Samples]:
    """From the label on the host to the target on the device."""
    device = settings.device
    return interleave(
        {
            "published way": lambda: published_target(label, num_classes, device),
            "ours": lambda: our_target(label, num_classes, device),
        },
        repeats=settings.rounds(7),
        warmup=0,  # both ran when they were compared
        device=device,
    )


def target_row(label: Tensor, num_classes: int, samples: dict[str, Samples]) -> Row:
    """One line of the first table."""
    return {
        "classes": num_classes,
        "published way, ms": samples["published way"].median * 1000,
        "ours, ms": samples["ours"].median * 1000,
        "times faster": ratio(samples["published way"], samples["ours"]),
        "published way, MB sent": (num_classes + 1) * label.numel() / MEGABYTE,
        "ours, MB sent": label.numel() / MEGABYTE,
    }


def loss_passes(label: Tensor, logits: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The losses by name, each with its backward pass; they return the loss."""
    target = published_target(label, logits.shape[1], logits.device)
    on_device = label.to(logits.device)

    def passed(loss: Callable[[], Tensor]) -> Tensor:
        value = loss()
        torch.autograd.grad(value, logits)
        return value

    return {
        "published way": lambda: passed(lambda: published_loss(logits, target)),
        "ours": lambda: passed(
            lambda: relaxed_boundary_loss(logits, on_device, strict_classes=STRICT)
        ),
        "cross entropy": lambda: passed(lambda: cross_entropy(logits, on_device)),
    }


def kept_bytes(forward: Callable[[], Tensor], logits: Tensor) -> int:
    """Bytes that a pass keeps from forward to backward, each storage once, without the logits."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    kept.pop(logits.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def loss_row(
    num_classes: int,
    samples: dict[str, Samples],
    logits: Tensor,
    passes: dict[str, Callable[[], Tensor]],
) -> Row:
    """One line of the second table."""
    return {
        "classes": num_classes,
        **{f"{name}, ms": found.median * 1000 for name, found in samples.items()},
        "times faster": ratio(samples["published way"], samples["ours"]),
        **{
            f"{name}, MB kept": kept_bytes(forward, logits) / MEGABYTE
            for name, forward in passes.items()
        },
    }
