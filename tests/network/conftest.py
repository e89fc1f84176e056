"""The upstream project's models as reference: keys, weights made by rule, logits."""

import gzip
import json
import zlib

import numpy as np
import pytest
import torch


def rule_weights(state):
    """Weights by the rule of the reference: a generator per key, seeded with its checksum."""
    filled = {}
    for key, value in state.items():
        if not value.is_floating_point():
            filled[key] = torch.zeros(value.shape, dtype=value.dtype)
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        if key.endswith("running_var"):
            tensor = torch.rand(value.shape, generator=generator) + 0.5
        elif key.endswith("running_mean"):
            tensor = 0.1 * torch.randn(value.shape, generator=generator)
        elif value.ndim == 1 and key.endswith(".weight"):
            tensor = 0.5 * torch.rand(value.shape, generator=generator) + 0.75
        elif value.ndim == 1:
            tensor = 0.1 * torch.randn(value.shape, generator=generator)
        else:
            scale = value[0].numel() ** -0.5
            tensor = scale * torch.randn(value.shape, generator=generator)
        filled[key] = tensor
    return filled


@pytest.fixture(scope="session")
def upstream_keys(upstream_models):
    with gzip.open(upstream_models / "state_dict_keys.json.gz") as file:
        return json.load(file)


@pytest.fixture(scope="session")
def upstream_reference(upstream_models):
    return np.load(upstream_models / "reference.npz")
