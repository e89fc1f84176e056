import errno
import os
import threading
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from datasets.transforms import normalize
from engine.batch import prepare
from engine.consumers import (
    ImageWriter,
    PredictionWriter,
    SampleTriptychs,
    SaveResults,
    ServerWriter,
    safe_name,
)
from engine.evaluate import run_pass
from engine.pictures import full_palette, overlay
from utils.files import WriteError
from utils.types import Prediction

PALETTE = torch.tensor([[128, 64, 128], [0, 0, 142], [70, 130, 180]], dtype=torch.uint8)
SIZE = (6, 8)


@pytest.fixture
def two_images():
    """A batch on the device, and its prediction with known classes."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, 3, (2, *SIZE), dtype=torch.uint8, generator=generator)
    label[:, 0] = 255
    ids = torch.randint(0, 3, (2, *SIZE), generator=generator)
    batch = {"image": normalize(raw), "label": label, "id": ["city/first", "city/second"]}
    return batch, Prediction(5 * F.one_hot(ids, 3).permute(0, 3, 1, 2).float()), raw, ids


def written(writer, batch, prediction):
    writer.update(batch, prediction)
    writer.all_reduce()
    assert writer.compute() == {}
    return sorted(str(path.relative_to(writer.directory)) for path in files(writer.directory))


def files(directory):
    return [path for path in Path(directory).rglob("*") if path.is_file()]


def read(path):
    return np.asarray(Image.open(path))


def test_save_results_writes_what_was_seen(tmp_path, two_images):
    batch, prediction, raw, ids = two_images
    names = written(SaveResults(tmp_path, PALETTE), batch, prediction)
    kinds = ("image", "overlay", "prediction", "target")
    assert names == [f"city/{name}_{kind}.png" for name in ("first", "second") for kind in kinds]
    palette = full_palette(PALETTE)
    for index, name in enumerate(("first", "second")):
        image = raw[index].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(read(tmp_path / f"city/{name}_image.png"), image)
        target = read(tmp_path / f"city/{name}_target.png")
        np.testing.assert_array_equal(target, palette[batch["label"][index].numpy()])
        assert not target[0].any(), "void is black"
        predicted = read(tmp_path / f"city/{name}_prediction.png")
        np.testing.assert_array_equal(predicted, palette[ids[index].numpy()])
        blended = overlay(image, ids[index].numpy().astype(np.uint8), palette)
        np.testing.assert_array_equal(read(tmp_path / f"city/{name}_overlay.png"), blended)


def test_an_image_without_a_class_has_no_picture_of_its_target(tmp_path, two_images):
    batch, prediction, _, _ = two_images
    batch["label"][1] = 255
    names = written(SaveResults(tmp_path, PALETTE), batch, prediction)
    assert [name for name in names if "target" in name] == ["city/first_target.png"]


def test_the_picture_has_the_size_of_the_label(tmp_path, two_images):
    batch, prediction, _, _ = two_images
    batch["image"] = F.interpolate(batch["image"], size=(3, 4))
    written(SaveResults(tmp_path, PALETTE), batch, prediction)
    assert {read(path).shape for path in files(tmp_path)} == {(*SIZE, 3)}


def test_server_files_hold_the_server_s_ids(tmp_path, two_images):
    batch, prediction, _, ids = two_images
    table = torch.tensor([7, 26, 23], dtype=torch.uint8)
    writer = ServerWriter(tmp_path, lambda train_ids: table[train_ids.long()])
    assert written(writer, batch, prediction) == ["city/first.png", "city/second.png"]
    expected = table[ids[1]].numpy()
    np.testing.assert_array_equal(read(tmp_path / "city/second.png"), expected)


def test_prediction_files(tmp_path, two_images):
    batch, prediction, _, ids = two_images
    del batch["label"]
    writer = PredictionWriter(tmp_path, PALETTE, ("road", "car", "sky"), save_probs=True)
    endings = ("color.png", "overlay.png", "probabilities.npz", "trainids.png")
    expected = [f"city/{name}_{end}" for name in ("first", "second") for end in endings]
    assert written(writer, batch, prediction) == expected
    stored = Image.open(tmp_path / "city/first_trainids.png")
    assert stored.mode == "L"
    np.testing.assert_array_equal(np.asarray(stored), ids[0])
    colour = read(tmp_path / "city/first_color.png")
    np.testing.assert_array_equal(colour, PALETTE.numpy()[ids[0]])
    with np.load(tmp_path / "city/first_probabilities.npz") as file:
        assert file["classes"].tolist() == ["road", "car", "sky"]
        assert file["probabilities"].dtype == np.float16
        exact = prediction.logits[0].softmax(0).numpy()
        np.testing.assert_allclose(file["probabilities"], exact, atol=1e-3)


def test_probabilities_only_on_request(tmp_path, two_images):
    batch, prediction, _, _ = two_images
    names = written(PredictionWriter(tmp_path, PALETTE), batch, prediction)
    assert not [name for name in names if name.endswith(".npz")]


def test_many_images_are_all_written(tmp_path, two_images):
    batch, prediction, _, _ = two_images
    writer = PredictionWriter(tmp_path, PALETTE)
    for number in range(20):
        writer.update({**batch, "id": [f"{number}a", f"{number}b"]}, prediction)
    writer.all_reduce()
    assert len(files(tmp_path)) == 20 * 2 * 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("frankfurt/frankfurt_000000_000294", "frankfurt/frankfurt_000000_000294"),
        ("Zürich (1)", "Zürich (1)"),
        ("a:b*c", "a%3Ab%2Ac"),
        ("50%", "50%25"),
        ("a\\b", "a%5Cb"),
        ("../../etc/passwd", "_/_/etc/passwd"),
        ("/absolute", "_/absolute"),
    ],
)
def test_ids_become_safe_paths(name, expected):
    assert safe_name(name) == expected
    assert Path("/results", safe_name(name)).resolve().is_relative_to("/results")


@pytest.mark.parametrize("ids", [["a", "a"], ["/a", "./a"]])
def test_two_images_never_share_a_file(tmp_path, two_images, ids):
    batch, prediction, _, _ = two_images
    writer = PredictionWriter(tmp_path, PALETTE)
    with pytest.raises(ValueError, match="two images would be written as"):
        writer.update({**batch, "id": ids}, prediction)
    writer.all_reduce()


class SlowWriter(ImageWriter):
    """Takes a moment for every image, on one thread."""

    def __init__(self, directory):
        super().__init__(directory)
        self.threads = 1
        self.begun = threading.Event()

    def arrays_of(self, batch, prediction):
        return {}

    def files_of(self, arrays):
        self.begun.set()
        time.sleep(0.1)
        yield ".txt", b"done"


def test_an_interrupt_leaves_queued_images_alone_and_the_one_in_work_whole(tmp_path):
    writer = SlowWriter(tmp_path)

    def interrupted():
        yield {"image": torch.zeros(2, 3, *SIZE, dtype=torch.uint8), "id": ["first", "second"]}
        assert writer.begun.wait(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pass(
            lambda images, needs: Prediction(images),
            nn.Identity(),
            interrupted(),
            [writer],
            prepare=partial(prepare, device=torch.device("cpu")),
        )
    assert [path.name for path in files(tmp_path)] == ["first.txt"]
    assert [future.cancelled() for future in writer.pending] == [False, True]


@pytest.mark.parametrize("name", ["x_color", "x_overlay.png", "x_trainids"])
def test_no_id_reaches_the_files_of_another(tmp_path, two_images, name):
    batch, prediction, _, _ = two_images
    names = written(PredictionWriter(tmp_path, PALETTE), {**batch, "id": ["x", name]}, prediction)
    assert len(names) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_names_the_path(tmp_path, two_images):
    batch, prediction, _, _ = two_images
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match=r"first.*no permission"):
        written(PredictionWriter(tmp_path, PALETTE), batch, prediction)
    tmp_path.chmod(0o700)


def test_a_file_in_the_way_names_the_path(tmp_path, two_images):
    batch, prediction, _, _ = two_images
    (tmp_path / "city").write_text("no folder")
    with pytest.raises(WriteError, match=r"city/first_trainids\.png: .*not a folder"):
        written(PredictionWriter(tmp_path, PALETTE), batch, prediction)


def test_a_full_disk_names_the_path_and_leaves_no_half_file(tmp_path, two_images, monkeypatch):
    batch, prediction, _, _ = two_images

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("utils.files.os.fsync", full)
    with pytest.raises(WriteError, match=r"city/first_trainids\.png: the disk is full"):
        written(PredictionWriter(tmp_path, PALETTE), batch, prediction)
    assert files(tmp_path) == []


def test_grey_files_can_be_read_as_labels(tmp_path, two_images):
    batch, prediction, _, ids = two_images
    written(PredictionWriter(tmp_path, PALETTE), batch, prediction)
    again = cv2.imread(str(tmp_path / "city/first_trainids.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, ids[0])


def test_sample_triptychs_keep_the_first_images(two_images):
    batch, prediction, raw, ids = two_images
    samples = SampleTriptychs(3, PALETTE)
    for _ in range(3):
        samples.update(batch, prediction)
    assert len(samples.triptychs) == 3
    image, target, predicted = samples.triptychs[1]
    np.testing.assert_array_equal(image, raw[1].permute(1, 2, 0))
    np.testing.assert_array_equal(target, full_palette(PALETTE)[batch["label"][1].numpy()])
    np.testing.assert_array_equal(predicted, full_palette(PALETTE)[ids[1].numpy()])
    none = SampleTriptychs(0, PALETTE)
    none.update({"image": batch["image"]}, prediction)
    assert none.triptychs == []
