import pytest
import torch

from utils.types import IGNORE_INDEX


@pytest.fixture
def five_classes():
    """Logits (2, 5, 6, 7), labels with some void, weights."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=generator, requires_grad=True)
    labels = torch.randint(0, 5, (2, 6, 7), generator=generator).to(torch.uint8)
    labels[:, 2] = IGNORE_INDEX
    weight = torch.rand(2, 6, 7, generator=generator)
    return logits, labels, weight


@pytest.fixture
def two_classes():
    """Logits (2, 2, 6, 7), labels with some void, weights."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 2, 6, 7, generator=generator, requires_grad=True)
    labels = torch.randint(0, 2, (2, 6, 7), generator=generator).to(torch.uint8)
    labels[:, 2] = IGNORE_INDEX
    weight = torch.rand(2, 6, 7, generator=generator)
    return logits, labels, weight
