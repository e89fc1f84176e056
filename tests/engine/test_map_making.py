from argparse import Namespace

import numpy as np
import pytest

from datasets.map_folders import origin
from datasets.pseudo_labels import LABELS
from datasets.uncertainty_masks import MASKS
from engine.build import data_set
from engine.map_claims import FORMERLY
from engine.map_making import (
    PREDICTION_FLAGS,
    MapWriter,
    describe_files,
    describe_maps,
    images_of_maps,
    refuse_not_finite,
)
from engine.training_data import random_transform
from options import parse
from tests.datasets.toys import Toy
from utils.types import Prediction


class Constant(MapWriter):
    """Writes one byte an image."""

    def arrays_of(self, batch, prediction):
        return {"value": np.arange(len(batch["id"]))}

    def files_of(self, arrays):
        yield ".map", bytes([int(arrays["value"])])


def test_only_the_maps_that_are_wanted_are_written(tmp_path):
    writer = Constant(tmp_path, {"b", "city/c"})
    writer.update({"id": ["a", "b", "city/c"]}, Prediction(None))
    writer.all_reduce()
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.map")}
    assert found == {"b.map": b"\1", "city/c.map": b"\2"}


def test_the_first_image_that_is_not_finite_is_named():
    refuse_not_finite(["a", "b"], [True, True], "mask")
    with pytest.raises(ValueError, match="the prediction of b is not finite, so it has no mask"):
        refuse_not_finite(["a", "b", "c"], [True, False, False], "mask")


def described(tmp_path, kind=LABELS, **flags):
    checkpoint = tmp_path / "best.pth"
    checkpoint.write_bytes(b"weights")
    values = {**dict.fromkeys(PREDICTION_FLAGS), "model": "m", "random_seed": 1, **flags}
    opts = Namespace(ckpt=checkpoint, weight=None, **values)
    return describe_maps(kind, opts, Toy(), 3, threshold=0.5)


def test_a_manifest_says_whose_the_maps_are(tmp_path):
    manifest = described(tmp_path, eval_scales=(1, 1.25))
    assert (manifest["content"], manifest["dataset"], manifest["images"]) == (
        "pseudo labels",
        "toy",
        12,
    )
    assert (manifest["threshold"], manifest["num_classes"]) == (0.5, 3)
    assert manifest["flags"]["eval_scales"] == [1, 1.25]
    assert (manifest["checkpoints"][0]["file"], manifest["complete"]) == ("best.pth", False)
    assert described(tmp_path, MASKS)["content"] == "uncertainty masks"


def test_the_seed_belongs_to_dropout_samples(tmp_path):
    assert "random_seed" not in described(tmp_path)["flags"]
    assert described(tmp_path, mc_samples=2)["flags"]["random_seed"] == 1


def test_flags_that_came_later_had_the_meaning_that_is_the_default_today():
    opts = parse([])
    assert {name: getattr(opts, name) for name in FORMERLY} == FORMERLY


def test_maps_without_a_network_name_no_checkpoint():
    opts = Namespace(crf_iterations=3, background_power=11.0, mc_samples=4)
    found = describe_files(LABELS, opts, Toy(), 3, flags=("crf_iterations",), cams="abc")
    assert found["flags"] == {"crf_iterations": 3}
    assert (found["cams"], found["num_classes"], found["complete"]) == ("abc", 3, False)
    assert not {"checkpoints", "calibrator"} & set(found)


@pytest.mark.parametrize(
    ("argv", "size"),
    [
        (["--crop_size", "40x80"], (40, 80)),
        (["--crop_size", "40x40"], (128, 256)),  # scenes are twice as wide as high
        (["--crop_size", "40x80", "--train_transform", "scale_crop"], (128, 256)),
    ],
)
def test_drawn_images_are_as_training_on_their_maps_draws_them(argv, size):
    opts = parse(["--dataset", "streets", *argv])
    dataset = images_of_maps(opts)
    assert not dataset.reads_labels
    assert (dataset.native_size(0), dataset.size(0)) == (size, size)
    if size == (40, 80):
        trained_on = data_set(opts, "train", random_transform(opts), label_source=lambda item: None)
        assert origin(LABELS, trained_on) == origin(LABELS, dataset)
        assert tuple(dataset[0]["image"].shape) == (3, *size)
