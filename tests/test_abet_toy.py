"""AbeT finds planted objects in toy scenes whose pixels are noisy (the specification's sanity run).

Noise matters: without errors in training the temperature learns nothing, and AbeT may invert.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metrics.ood import OutOfDistribution
from network.heads import HeadOptions
from uncertainty import build_score
from utils.types import Prediction

SIDE, CLASSES, NOISE = 48, 5, 0.35
COLOURS = torch.tensor(
    [[0.1, 0.1, 0.9], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.9, 0.9, 0.1], [0.5, 0.5, 0.5]]
)


class TinyNetwork(nn.Module):
    """Four dilated convolutions, a cosine head and a learned temperature."""

    def __init__(self):
        super().__init__()
        channels, layers = 3, []
        for dilation in (1, 2, 4, 1):
            conv = nn.Conv2d(channels, 24, 3, padding=dilation, dilation=dilation, bias=False)
            layers += [conv, nn.BatchNorm2d(24), nn.ReLU()]
            channels = 24
        self.body = nn.Sequential(*layers)
        options = HeadOptions("cosine", "learned", floor=1e-12)
        self.head = options.class_head(24, CLASSES)
        self.temperature = options.temperature_layer(24)

    def forward(self, images):
        features = self.body(images)
        temperature = self.temperature(features)
        return Prediction(self.head(features) / temperature, temperature=temperature)


def scenes(count, generator, planted=False):
    """Images (N, 3, S, S) of coloured rectangles, labels, and where checkerboards were planted."""
    labels = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    unknown = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)

    def corner():
        return torch.randint(0, SIDE - 10, (2,), generator=generator).tolist()

    for label in labels:
        label[:] = torch.randint(0, CLASSES, (), generator=generator)
        for _ in range(4):
            (top, left), extent = corner(), torch.randint(8, 30, (2,), generator=generator)
            label[top : top + extent[0], left : left + extent[1]] = torch.randint(
                0, CLASSES, (), generator=generator
            )
    images = COLOURS[labels].permute(0, 3, 1, 2).clone()
    board = (torch.arange(10)[:, None] // 2 + torch.arange(10) // 2) % 2
    for image, mask in zip(images, unknown, strict=True) if planted else ():
        top, left = corner()
        image[:, top : top + 10, left : left + 10] = board.float()
        mask[top : top + 10, left : left + 10] = 1
    return images + NOISE * torch.randn(images.shape, generator=generator), labels, unknown


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_objects_stand_out(seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = TinyNetwork().train()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(200):
        images, labels, _ = scenes(8, generator)
        optimizer.zero_grad()
        F.cross_entropy(network(images).logits, labels).backward()
        optimizer.step()
    network.eval()
    images, labels, unknown = scenes(60, generator, planted=True)
    metric = OutOfDistribution([str(number) for number in range(CLASSES)], [build_score("abet")])
    with torch.no_grad():
        for part in torch.arange(60).split(20):
            batch = {"image": images[part], "label": labels[part].to(torch.uint8)}
            batch |= {"ood": unknown[part], "id": [str(int(number)) for number in part]}
            metric.update(batch, network(images[part]))
    metric.all_reduce()
    found = metric.compute()["total"]["ood"]["abet"]
    base_rate = 100 * found["ood_pixels"] / found["pixels"]
    assert found["auroc"] > 70
    assert found["aupr_out"] > 2 * base_rate
