"""Logits, labels and predictions for the tests of calibrators."""

import torch

from utils.types import Prediction


def pixels(count=400, classes=5, *, scale=2.0, seed=0, void=0.1):
    """Overconfident logits (n, C) and labels (n,), uint8, some of them void."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += 3 * torch.rand(count, generator=generator)
    labels = labels.masked_fill(torch.rand(count, generator=generator) < void, 255)
    return scale * logits, labels.to(torch.uint8)


def prediction(images=3, classes=5, size=(6, 7), *, members=0, features=4, seed=0):
    """A prediction with every field a calibrator may not touch, and normalised images."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return 3 * torch.randn(*shape, generator=generator)

    logits, of_members = random(images, classes, *size), None
    if members:
        of_members = random(members, images, classes, *size)
        logits = of_members.softmax(2).mean(0).log()
    return Prediction(
        logits,
        member_logits=of_members,
        temperature=random(images, 1, *size).exp(),
        aux_logits=random(images, classes, *size),
        features=random(images, features).abs(),
    ), random(images, 3, *size)
