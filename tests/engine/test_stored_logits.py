from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.stored_logits import LogitsDirectory, read_logits
from utils.types import Batch


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


def test_files_in_folders_below_are_counted_too(tmp_path):
    (tmp_path / "city").mkdir()
    np.save(tmp_path / "city" / "x.npy", np.zeros((3, 4, 6)))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="has 1 files and none of city/y.npy, city/y.npz, "):
        read_logits(tmp_path, "city/y", 3)


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


@pytest.mark.parametrize("mode", ["L", "P"])
def test_no_changed_and_no_missing_byte_of_a_label_map_goes_unseen(tmp_path, mode):
    path = tmp_path / "a.png"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 3, (6, 8), np.uint8))
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(path)
    content = path.read_bytes()
    read_logits(tmp_path, "a", 3)
    for place in range(0, len(content), 1 + len(content) // 80):
        changed = bytearray(content)
        changed[place] ^= 1
        for written in (bytes(changed), content[:place]):
            path.write_bytes(written)
            with pytest.raises(ValueError, match=f"{path} is damaged, it"):
                read_logits(tmp_path, "a", 3)


def test_label_maps_of_other_classes_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(tmp_path / "a.png")
    source = LogitsDirectory(Namespace(), 3, tmp_path)
    with pytest.raises(ValueError, match=r"a.png holds the value 7; .* train ids 0 to 2, or 255"):
        source.of_batch(Batch(image=torch.zeros(1, 3, 2, 2), id=["a"]))


def stored(folder, probabilities, classes=("x", "y", "z")):
    np.savez(folder / "a_probabilities.npz", probabilities=probabilities, classes=list(classes))
    return LogitsDirectory(Namespace(), 3, folder, ("x", "y", "z"))


def test_probabilities_of_other_classes_or_values_are_refused(tmp_path):
    good = np.full((3, 4, 6), 1 / 3, np.float16)
    stored(tmp_path, good).of_batch(batch_of("a"))
    with pytest.raises(ValueError, match="probabilities of z, y, x, .* the classes x, y, z"):
        stored(tmp_path, good, ("z", "y", "x")).of_batch(batch_of("a"))
    for value in (-0.5, 1.5, np.nan):
        bad = good.copy()
        bad[1, 2, 3] = value
        with pytest.raises(ValueError, match=r"a_probabilities.npz has probabilities from"):
            stored(tmp_path, bad).of_batch(batch_of("a"))
