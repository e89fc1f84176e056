"""Random numbers that follow from a seed and names."""

from __future__ import annotations

import hashlib

import torch


def seeded_generator(seed: int, *texts: str) -> torch.Generator:
    """A CPU generator that depends on the seed and the texts alone.

    Python's own hash differs between processes, so the seed is taken from SHA-256.
    """
    digest = hashlib.sha256("\0".join((str(seed), *texts)).encode()).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest[:4], "little"))  # the generator's state has 32 bits
    return generator
