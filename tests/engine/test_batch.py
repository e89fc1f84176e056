import torch

from datasets.transforms import denormalize, normalize
from engine.batch import prepare


def batch_of_two():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8, generator=generator)
    return {
        "image": image,
        "target_image": image.flip(0),
        "label": torch.zeros(2, 5, 6, dtype=torch.uint8),
        "weight": torch.ones(2, 5, 6),
        "id": ["a", "b"],
    }


def test_images_are_normalised_and_the_rest_is_unchanged():
    batch = batch_of_two()
    prepared = prepare(batch, torch.device("cpu"))
    assert prepared["image"].dtype == torch.float32
    assert torch.equal(prepared["image"], normalize(batch["image"]))
    assert torch.equal(prepared["target_image"], normalize(batch["target_image"]))
    assert torch.equal(denormalize(prepared["image"]), batch["image"])
    assert prepared["label"].dtype == torch.uint8
    assert prepared["weight"] is batch["weight"]
    assert prepared["id"] == ["a", "b"]
    assert batch["image"].dtype == torch.uint8, "the loader's batch must stay as it was"


def test_channels_last_changes_the_layout_alone():
    plain = prepare(batch_of_two(), torch.device("cpu"))["image"]
    last = prepare(batch_of_two(), torch.device("cpu"), channels_last=True)["image"]
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, plain)
