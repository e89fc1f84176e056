from argparse import Namespace
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engine.external import (
    External,
    LogitsDirectory,
    external_network,
    logits_of,
    mask_classification,
    state_hash,
)
from utils.types import Batch

MODULE = """
import torch
from PIL import Image
from torch import nn

class Third(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
    def forward(self, images):
        return {"out": self.layer(images)[..., ::3, ::3]}

def build():
    torch.manual_seed(0)
    return Third()

def number():
    return 3

text = "no callable"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of another project in the working directory."""
    (tmp_path / "other_project.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "other_project"


def test_network_of_another_module_gives_logits_at_the_size_of_the_images(module):
    network = external_network(f"{module}:build")
    method = External(Namespace(), 4, network, "its name")
    images = torch.randn(2, 3, 12, 18)
    logits = method.predict(images).logits
    assert logits.shape == (2, 4, 12, 18)
    small = network(images)["out"]
    expected = nn.functional.interpolate(small, (12, 18), mode="bilinear", align_corners=False)
    assert torch.equal(logits, expected)
    assert method.deployable() is network


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other_project", "write module:callable"),
        ("nothing_like_this:build", "nothing_like_this cannot be imported"),
        ("other_project:missing", "other_project has no callable missing"),
        ("other_project:text", "no callable text"),
        ("other_project:number", "returned int, not a torch.nn.Module"),
    ],
)
def test_wrong_names_are_explained(module, text, message):
    with pytest.raises(ValueError, match=message):
        external_network(text)


def test_other_number_of_classes_is_refused(module):
    method = External(Namespace(), 19, external_network(f"{module}:build"), "mine")
    with pytest.raises(ValueError, match=r"mine gives logits .*\(1, 4, 2, 2\); expected \(N, 19"):
        method.predict(torch.randn(1, 3, 6, 6))


def test_features_are_refused(module):
    method = External(Namespace(), 4, external_network(f"{module}:build"), "mine")
    with pytest.raises(ValueError, match="no pooled features"):
        method.predict(torch.randn(1, 3, 6, 6), frozenset({"features"}))


def test_logits_are_found_in_tensors_mappings_and_objects():
    logits = torch.randn(1, 2, 3, 3)
    for output in (logits, OrderedDict(out=logits, aux=1), SimpleNamespace(logits=logits)):
        assert torch.equal(logits_of(output, "x"), logits)
    with pytest.raises(ValueError, match="x returned list without logits"):
        logits_of([logits], "x")


def test_mask_classification_sums_class_probabilities_over_the_queries():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(2, 5, 4, generator=generator)
    masks = torch.randn(2, 5, 3, 6, generator=generator)
    found = logits_of({"class_queries_logits": classes, "masks_queries_logits": masks}, "x")
    assert torch.equal(found, mask_classification(classes, masks))
    scores = torch.zeros(2, 3, 3, 6)
    for image in range(2):
        for query in range(5):
            share = classes[image, query].softmax(0)[:3]
            scores[image] += share[:, None, None] * masks[image, query].sigmoid()
    assert torch.allclose(found.softmax(1), scores / scores.sum(1, keepdim=True), atol=1e-6)


def test_hash_follows_the_weights(module):
    one, other = external_network(f"{module}:build"), external_network(f"{module}:build")
    assert state_hash(one) == state_hash(other)
    other.layer.bias.data[0] += 1
    assert state_hash(one) != state_hash(other)


def batch_of(*names):
    return {"id": list(names), "image": torch.zeros(len(names), 3, 4, 6)}


def test_logits_are_read_by_the_images_ids(tmp_path):
    arrays = {name: np.random.default_rng(i).normal(size=(3, 4, 6)) for i, name in enumerate("ab")}
    np.save(tmp_path / "a.npy", arrays["a"].astype(np.float16))
    np.savez(tmp_path / "b.npz", logits=arrays["b"])
    found = LogitsDirectory(Namespace(), 3, tmp_path).of_batch(batch_of("b", "a")).logits
    assert found.dtype == torch.float32
    assert np.allclose(found[0], arrays["b"], atol=1e-6)
    assert np.allclose(found[1], arrays["a"], atol=1e-2)


def test_probabilities_are_read_as_their_logs(tmp_path):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (4, 6)).transpose(2, 0, 1)
    probabilities[:, 0, 0] = 1, 0, 0
    half = probabilities.astype(np.float16)
    np.savez(tmp_path / "a_probabilities.npz", probabilities=half, classes=["x", "y", "z"])
    found = LogitsDirectory(Namespace(), 3, tmp_path).of_batch(batch_of("a")).logits
    assert torch.isfinite(found).all()
    assert np.allclose(found.softmax(1)[0], probabilities, atol=1e-3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 6)), r"a.npy has the shape \(2, 4, 6\); expected \(3, h, w\)"),
        (np.full((3, 4, 6), np.inf), "a.npy has 72 logits that are not finite"),
    ],
)
def test_wrong_arrays_are_explained(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        LogitsDirectory(Namespace(), 3, tmp_path).of_batch(batch_of("a"))


def test_missing_and_damaged_files_are_explained(tmp_path):
    source = LogitsDirectory(Namespace(), 3, tmp_path)
    with pytest.raises(
        ValueError, match="0 files and none of a.npy, a.npz, a_probabilities.npz, a.png"
    ):
        source.content_hash(["a"])
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="a.npy cannot be read as an array"):
        source.of_batch(batch_of("a"))


def test_other_sizes_in_a_batch_are_refused_with_the_flag(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 6)))
    np.save(tmp_path / "b.npy", np.zeros((3, 2, 6)))
    with pytest.raises(ValueError, match="--val_batch_size 1"):
        LogitsDirectory(Namespace(), 3, tmp_path).of_batch(batch_of("a", "b"))


def test_label_maps_are_certain_predictions(tmp_path):
    ids = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "a.png")
    source = LogitsDirectory(Namespace(), 3, tmp_path)
    prediction = source.of_batch(Batch(image=torch.zeros(1, 3, 2, 3), id=["a"]))
    probabilities = prediction.logits.softmax(1)[0]
    for value in range(3):
        assert (probabilities[value][torch.from_numpy(ids == value)] > 1 - 1e-6).all()
    assert torch.allclose(probabilities[:, 1, 1], torch.full((3,), 1 / 3))


def test_label_maps_of_other_classes_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(tmp_path / "a.png")
    source = LogitsDirectory(Namespace(), 3, tmp_path)
    with pytest.raises(ValueError, match=r"a.png holds the value 7; .* train ids 0 to 2, or 255"):
        source.of_batch(Batch(image=torch.zeros(1, 3, 2, 2), id=["a"]))
