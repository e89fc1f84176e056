import pickle

import pytest
import torch

from tests.uncertainty.calibrators.samples import pixels, prediction
from uncertainty.calibrators import (
    CALIBRATORS,
    LocalTemperature,
    LocalTemperatureHead,
    Temperature,
    TemperatureGrid,
    Vector,
    fit_clusters,
    load_calibrator,
    save_calibrator,
)
from uncertainty.calibrators.files import CLASSES, FORMAT


def cluster(clustering, **settings):
    logits, labels = pixels(120)
    features = prediction(images=6)[0].features
    image = torch.arange(6).repeat_interleave(20)
    chosen = {"clusters": 3, "clustering": clustering, "grid": TemperatureGrid(0.5, 4, 0.5)}
    return fit_clusters(logits, labels, image, features, **chosen, **settings)


def local():
    head = LocalTemperatureHead(5, init="random", init_t=1.0, floor="clamp", seed=3)
    return LocalTemperature(head, [0.4, 0.5, 0.6], [0.1, 0.2, 0.3])


MAKERS = {
    "temperature": lambda: Temperature(1.37, 5),
    "vector": lambda: Vector(torch.rand(5), torch.rand(5)),
    "kmeans": lambda: cluster("kmeans"),
    "gmm": lambda: cluster("gmm", assignment="soft"),
    "per class": lambda: cluster("kmeans", per_class=True, assignment="soft"),
    "local": local,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("members", [0, 2])
def test_a_saved_calibrator_does_what_it_did(name, members, tmp_path):
    calibrator = MAKERS[name]()
    manifest = {"split": "val", "pixels": 120, "commit": None, "scenes": ["a", "b"]}
    save_calibrator(tmp_path / "new" / "file.pth", calibrator, manifest)
    loaded, read = load_calibrator(tmp_path / "new" / "file.pth")
    assert read == manifest
    assert type(loaded) is type(calibrator)
    before, images = prediction(members=members)
    expected, found = calibrator(before, images), loaded(before, images)
    assert torch.equal(found.logits, expected.logits)
    assert not torch.equal(found.logits, before.logits)
    if members:
        assert torch.equal(found.member_logits, expected.member_logits)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.pth"]


def test_every_kind_is_listed():
    assert list(CALIBRATORS) == list(CLASSES)
    assert all(CLASSES[kind].kind == kind for kind in CALIBRATORS)


@pytest.mark.parametrize("name", MAKERS)
def test_only_plain_content_is_stored(name, tmp_path):
    save_calibrator(tmp_path / "file.pth", MAKERS[name](), {})
    content = torch.load(tmp_path / "file.pth", weights_only=True)
    assert list(content) == ["format", "kind", "state", "manifest"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"model_state": {"a": torch.ones(1)}},
            "is no calibrator: it is a checkpoint of a network",
        ),
        ({"layer.weight": torch.ones(1)}, "is no calibrator: it is a checkpoint of a network"),
        (torch.ones(3), "is no calibrator: it holds a Tensor"),
        (
            {"format": "segdoubt calibrator 9"},
            "its format is 'segdoubt calibrator 9', this version",
        ),
        ({"format": "segdoubt masks 1"}, "is no calibrator: it holds other values"),
        ({"format": FORMAT, "kind": "magic"}, "holds a calibrator of kind 'magic'; there are temp"),
        ({"format": FORMAT, "kind": "vector", "state": {}}, "a damaged vector calibrator"),
        ({"format": FORMAT, "kind": "temperature"}, "a damaged temperature calibrator"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message) as caught:
        load_calibrator(tmp_path / "file.pth")
    assert str(tmp_path / "file.pth") in str(caught.value)


def test_absent_truncated_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="absent.pth does not exist; make one with --fit_calib"):
        load_calibrator(tmp_path / "absent.pth")
    save_calibrator(tmp_path / "whole.pth", local(), {})
    whole = (tmp_path / "whole.pth").read_bytes()
    pictures = b"\x89PNG\r\n\x1a\n" + bytes(100)
    for name, data in (("cut", whole[: len(whole) // 2]), ("picture", pictures), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name} \({len(data)} bytes\) is truncated or no"):
            load_calibrator(tmp_path / name)


def test_nothing_is_run_when_a_file_is_read(tmp_path):
    class Intruder:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "file.pth").write_bytes(pickle.dumps(Intruder(), protocol=2))
    with pytest.raises(ValueError, match="is truncated or no calibrator"):
        load_calibrator(tmp_path / "file.pth")
    assert not (tmp_path / "ran").exists()
