import importlib
import json
from argparse import Namespace
from functools import partial

import numpy as np
import pytest
import torch

from datasets.label_files import decode_label
from datasets.loaders import eval_batches
from datasets.map_folders import MANIFEST, origin
from datasets.pseudo_labels import LABELS
from datasets.uncertainty_masks import MASKS
from engine.batch import prepare
from engine.build import data_set
from engine.external import state_hash
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
from main import main
from options import parse
from tests.datasets import layouts
from tests.datasets.toys import Toy
from tests.engine.toys import network_of_the_toy
from utils.types import Prediction

on_cpu = partial(prepare, device=torch.device("cpu"))


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
    opts = Namespace(ckpt=checkpoint, external=None, logits_dir=None, **values)
    return describe_maps(kind, opts, Toy(), network_of_the_toy(), threshold=0.5)


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
        (["--crop_size", "40x40"], (40, 80)),  # scenes are twice as wide as high
        (["--crop_size", "40x100"], (50, 100)),
        (["--crop_size", "40x80", "--train_transform", "scale_crop"], (128, 256)),
    ],
)
def test_drawn_images_are_as_training_on_their_maps_draws_them(argv, size):
    opts = parse(["--dataset", "streets", *argv])
    dataset = images_of_maps(opts)
    assert not dataset.reads_labels
    assert (dataset.native_size(0), dataset.size(0)) == (size, size)
    source = {"label_source": lambda item: torch.zeros(size, dtype=torch.uint8)}
    trained_on = data_set(opts, "train", random_transform(opts), **source)
    assert origin(LABELS, trained_on) == origin(LABELS, dataset)
    assert tuple(dataset[0]["image"].shape) == (3, *size)
    assert tuple(trained_on[0]["label"].shape) == opts.crop_size


OTHER_PROJECT = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 11, 1)
"""


def test_a_network_of_another_project_makes_maps(tmp_path, monkeypatch):
    (tmp_path / "other_maps.py").write_text(OTHER_PROJECT)
    monkeypatch.syspath_prepend(str(tmp_path))
    root = layouts.camvid(tmp_path / "data", train=2)
    folder = tmp_path / "labels"
    argv = ["--make_pseudo_labels", "--external", "other_maps:build", "--dataset", "camvid"]
    argv += ["--data_root", str(root), "--pseudo_dir", str(folder), "--num_workers", "0"]
    assert main(argv) == 0
    network = importlib.import_module("other_maps").build()
    dataset = images_of_maps(parse(argv))
    for batch in map(on_cpu, eval_batches(dataset, batch_size=1, num_workers=0)):
        with torch.no_grad():
            expected = network(batch["image"]).argmax(1)[0].numpy()
        written = decode_label((folder / f"{batch['id'][0]}.png").read_bytes())
        np.testing.assert_array_equal(written, expected)
    (source,) = json.loads((folder / MANIFEST).read_text())["checkpoints"]
    assert source == {"file": "other_maps:build", "sha256": state_hash(network)}
