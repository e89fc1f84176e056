import numpy as np
import pytest
import torch

from engine.sampling import PixelSampler, sample_indices
from utils.types import Prediction

SIZE = (6, 8)


def make_batch(names, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(names), 3, *SIZE, generator=generator)
    labels = torch.randint(0, 3, (len(names), *SIZE), generator=generator, dtype=torch.uint8)
    features = torch.randn(len(names), 5, generator=generator)
    return {"id": names, "label": labels}, Prediction(logits, features=features)


def test_indices_are_unique_in_range_and_depend_on_seed_and_name_alone():
    first = sample_indices(20, 48, 1, "a")
    assert len(np.unique(first)) == 20
    assert first.min() >= 0
    assert first.max() < 48
    sample_indices(20, 48, 1, "b")
    assert np.array_equal(first, sample_indices(20, 48, 1, "a"))
    assert not np.array_equal(first, sample_indices(20, 48, 1, "b"))
    assert not np.array_equal(first, sample_indices(20, 48, 2, "a"))


def test_minus_one_takes_every_pixel():
    assert np.array_equal(sample_indices(-1, 48, 1, "a"), np.arange(48))


def test_more_pixels_than_the_image_has_are_refused():
    with pytest.raises(ValueError, match="requested 49 pixels, image a has 48"):
        sample_indices(49, 48, 1, "a")


def test_sample_holds_the_logits_labels_and_features_of_the_drawn_pixels():
    batch, prediction = make_batch(["b", "a"])
    sampler = PixelSampler(10, seed=1, features=True)
    sampler.update(batch, prediction)
    sampler.all_reduce()
    sample = sampler.sample()
    assert sample.ids == ("a", "b")
    places = sample_indices(10, 48, 1, "a")
    assert torch.equal(sample.logits[:10], prediction.logits[1].flatten(1)[:, places].t())
    assert torch.equal(sample.labels[:10], batch["label"][1].flatten()[places])
    assert sample.image_of_pixel.tolist() == [0] * 10 + [1] * 10
    assert torch.equal(sample.features, prediction.features[[1, 0]])


def test_sample_does_not_depend_on_batches_or_order():
    batch, prediction = make_batch(["a", "b", "c"])
    whole, parts = PixelSampler(12, seed=3), PixelSampler(12, seed=3)
    whole.update(batch, prediction)
    for index in (2, 0, 1):
        one = {"id": [batch["id"][index]], "label": batch["label"][index : index + 1]}
        parts.update(one, Prediction(prediction.logits[index : index + 1]))
    assert torch.equal(whole.sample().logits, parts.sample().logits)
    assert torch.equal(whole.sample().labels, parts.sample().labels)
    assert parts.sample().features is None


def test_logits_that_are_not_finite_are_refused_with_the_image():
    batch, prediction = make_batch(["a", "b"])
    prediction.logits[1, 0] = torch.nan
    with pytest.raises(ValueError, match="logits of b are not finite"):
        PixelSampler(-1, seed=0).update(batch, prediction)


def test_prediction_of_another_size_is_refused():
    batch, prediction = make_batch(["a"])
    batch["label"] = batch["label"][:, :4]
    with pytest.raises(ValueError, match="a: the label has 4x8"):
        PixelSampler(-1, seed=0).update(batch, prediction)
