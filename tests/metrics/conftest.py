import pytest
import torch

from utils.types import Prediction

CLASSES = ("road", "car", "sky", "rider", "train")
NUM_CLASSES = len(CLASSES)


def make_batch(count=6, size=(9, 11), seed=0):
    """Labels and logits in three conditions and two scenes; the last class occurs nowhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, NUM_CLASSES - 1, (count, *size), generator=generator)
    logits = torch.randn(count, NUM_CLASSES, *size, generator=generator)
    logits[:, NUM_CLASSES - 1] = -100.0
    logits.scatter_add_(1, labels[:, None], torch.ones(count, 1, *size))
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    batch = {
        "label": labels.to(torch.uint8),
        "id": [f"image{index}" for index in range(count)],
        "dataset": ["acdc"] * count,
        "scene": [f"scene{index % 2}" for index in range(count)],
        "condition": [("fog", "night", "rain")[index % 3] for index in range(count)],
    }
    return batch, Prediction(logits)


def part(batch, prediction, images):
    """Some images of a batch."""
    chosen = {
        key: value[images] if isinstance(value, torch.Tensor) else [value[i] for i in images]
        for key, value in batch.items()
    }
    return chosen, Prediction(prediction.logits[images])


def updated(metric, batch, prediction, step=None):
    """A metric that saw all images, ``step`` at a time."""
    count = len(batch["id"])
    for start in range(0, count, step or count):
        metric.update(*part(batch, prediction, range(start, min(count, start + (step or count)))))
    return metric


@pytest.fixture
def six_images():
    return make_batch()
