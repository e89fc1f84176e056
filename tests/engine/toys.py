"""A method of two optimizers without batch norm, and data for it, small enough to check by hand."""

from argparse import Namespace

import torch
from torch import nn
from torch.optim import SGD

from engine.trained import Trained
from methods import Method
from utils.types import Prediction, StepOutput


class Adversaries(Method):
    """A painter that minimises its output and a critic that regresses it, both linear."""

    def __init__(self, opts, num_classes=2):
        super().__init__(opts, num_classes)
        self.painter = nn.Conv2d(3, num_classes, 1)
        self.critic = nn.Conv2d(num_classes, 1, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def optimizers(self):
        return {
            "painter": SGD(self.painter.parameters(), lr=0.1, momentum=0.9, fused=True),
            "critic": SGD(self.critic.parameters(), lr=0.05, fused=True),
        }

    def training_step(self, batch, step):
        self.seen += len(batch["image"])
        painted = self.painter(batch["image"])
        judged = nn.functional.conv2d(
            painted, self.critic.weight.detach(), self.critic.bias.detach()
        )
        losses = {"painter": painted.square().mean() + judged.mean()}
        if step % 2 == 0:  # the critic rests on odd steps
            losses["critic"] = (self.critic(painted.detach()) - 1).square().mean()
        return StepOutput(losses, {"brightness": painted.detach().mean()})

    def predict(self, images, needs=frozenset()):
        return Prediction(self.painter(images))

    def deployable(self):
        return self.painter


def options(**changes):
    """The flags that the loop and a toy read."""
    values = {
        "amp": "off",
        "accumulate": 1,
        "batch_size": 4,
        "channels_last": False,
        "ema": None,
        "epoch_itrs": None,
        "lr_batch_size": None,
        "lr_floor": 1e-6,
        "lr_policy": "poly",
        "patience": None,
        "poly_exp": None,
        "print_interval": 2,
        "random_seed": 3,
        "repoly": 1.5,
        "rescale": 1.0,
        "rlx_off_epoch": -1,
        "step_size": 10,
        "stop_itrs": None,
        "total_itrs": 6,
        "val_interval": 3,
        "warm_up": 0,
    }
    return Namespace(**{**values, **changes})


def batches(size=4, seed=0, start=0, bad_step=None):
    """Batches that depend on their number alone; one of them may hold a NaN."""
    number = start
    while True:
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        image = torch.rand(size, 3, 6, 6, generator=generator)
        if number == bad_step:
            image[0, 0, 0, 0] = float("nan")
        yield {
            "image": image,
            "label": torch.zeros(size, 6, 6, dtype=torch.uint8),
            "id": [f"image{number}_{index}" for index in range(size)],
        }
        number += 1


def network_of_the_toy():
    """What the makers of manifests are told of a network of three classes."""
    return Trained(Adversaries(options(), 3), ("a", "b", "c"), torch.zeros(3, 3), ())
