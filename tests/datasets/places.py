"""Samples whose every part says where each of its pixels comes from."""

import numpy as np
import torch
from torchvision import tv_tensors

from datasets.samples import Sample

COLUMNS = 16  # sizes up to 15 x 16, so that no place is 255


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(size, seed=0):
    """An image (H, W, 3) of white noise."""
    return rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def sample_of(image, label, **more):
    """A sample of arrays, whose weight is one more than the label."""
    return Sample(
        image=tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
        label=tv_tensors.Mask(torch.from_numpy(label)),
        weight=tv_tensors.Mask(1 + torch.from_numpy(label).float()),
        id="a",
        **more,
    )


def placed(size, **more):
    """A sample whose three channels, label and weight hold the place of each pixel."""
    places = (np.arange(size[0])[:, None] * COLUMNS + np.arange(size[1])).astype(np.uint8)
    return sample_of(places[..., None].repeat(3, 2), places, **more)


def check_alignment(out, fill):
    """Compare what the parts say of each pixel; the weight is ``fill`` where the label is void.

    Returns the places (h, w) as they are shown, 255 in the padding.
    """
    label, inside = torch.Tensor(out["label"]), torch.Tensor(out["label"]) != 255
    assert inside.any()
    assert torch.equal(out["image"][0][inside], out["label"][inside])
    assert torch.equal(out["weight"][inside], 1 + label[inside])
    assert (out["weight"][~inside] == fill).all()
    padding = out["image"][:, ~inside]
    assert (padding == torch.tensor([[124], [116], [104]])).all()
    return out["label"].numpy()
