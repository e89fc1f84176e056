"""Data sets whose label files are not read: void labels, or those of another source."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import build_dataset
from datasets.base import Item
from datasets.camvid import CamVid
from datasets.folder import Folder
from datasets.smiyc import SMIYCAnomaly
from datasets.statistics import class_weights
from datasets.streets import Streets, StreetsObstacles
from datasets.taxonomy import ROAD
from datasets.transforms import eval_transform, target_transform, train_transform
from datasets.voc import VOC
from tests.datasets import layouts
from tests.datasets.toys import Toy

NAMES = ["background", "road"]
LAYOUTS = {  # what writes the files, a split, and what lies where labels are
    "camvid": (layouts.camvid, "train", ["*annot"]),
    "cityscapes": (layouts.cityscapes, "train", ["gtFine"]),
    "cityscapes_robotcar": (layouts.cityscapes, "train", ["gtFine"]),
    "acdc": (layouts.acdc, "train", ["gt"]),
    "idd": (lambda root: layouts.idd(root, ("265", "431")), "train", ["gtFine"]),
    "voc": (lambda root: layouts.voc(root / "VOCdevkit/VOC2012"), "train", ["**/Seg*Class"]),
    "coco14": (layouts.coco14, "train", ["*/class_labels"]),
    "folder": (lambda root: layouts.folder(root, NAMES), "train", ["labels"]),
    "kvasir": (layouts.kvasir, "train", ["masks"]),
    "mapillary": (layouts.mapillary, "train", ["*/labels"]),
    "gta5": (layouts.gta5, "train", ["labels"]),
    "synthia": (layouts.synthia, "train", ["GT"]),
    "robotcar": (layouts.robotcar, "val", ["anno"]),
    "lost_and_found": (layouts.lost_and_found, "test", ["gtCoarse"]),
    "road_anomaly": (layouts.road_anomaly, "test", ["frames/*.labels"]),
    "smiyc_anomaly": (layouts.smiyc, "val", ["labels_masks"]),
    "smiyc_obstacle": (layouts.smiyc, "val", ["labels_masks"]),
}


def without_labels(name, root):
    """The folder of a data set after its labels were deleted, its split and its labelled items."""
    write, split, patterns = LAYOUTS[name]
    write(root)
    labelled = build_dataset(name, root, split)
    for folder in [path for pattern in patterns for path in root.glob(pattern)]:
        shutil.rmtree(folder)
    return split, labelled


@pytest.mark.parametrize("name", LAYOUTS)
def test_label_files_are_not_needed(tmp_path, name):
    split, labelled = without_labels(name, tmp_path)
    dataset = build_dataset(name, tmp_path, split, labelled=False)
    assert dataset.items == [item._replace(label=None) for item in labelled.items]
    assert all(item.label is not None for item in labelled.items)
    for sample in dataset:
        assert sample["label"].shape == sample["image"].shape[1:]
        assert (sample["label"] == 255).all()
        assert sample["label"].dtype == torch.uint8
        assert "ood" not in sample
    with pytest.raises(ValueError, match="label|does not exist"):
        build_dataset(name, tmp_path, split)


@pytest.mark.parametrize("name", LAYOUTS)
def test_label_files_are_not_opened(tmp_path, name, monkeypatch):
    write, split, patterns = LAYOUTS[name]
    write(tmp_path)
    for path in [path for pattern in patterns for path in tmp_path.glob(f"{pattern}/**/*")]:
        if path.is_file():
            path.write_bytes(b"no image")
    listed = []
    original = Path.glob

    def watched(self, pattern, **more):
        """Note the folder that is listed."""
        listed.append(self.relative_to(tmp_path).as_posix())
        return original(self, pattern, **more)

    monkeypatch.setattr(Path, "glob", watched)
    dataset = build_dataset(name, tmp_path, split, labelled=False)
    assert dataset[0]["label"].unique().tolist() == [255]
    of_labels = [Path(pattern).name for pattern in patterns]
    parts = {part for path in listed for part in path.split("/")}
    assert parts
    assert not [part for part in parts if any(fnmatch(part, name) for name in of_labels)]


def test_streets_without_labels_show_the_same_images():
    plain = Streets(None, "val", image_size=(32, 64))
    bare = Streets(None, "val", image_size=(32, 64), labelled=False)
    assert bare.items == plain.items
    assert torch.equal(bare[3]["image"], plain[3]["image"])
    assert bare.read_raw_label(3).unique().tolist() == [255]
    assert "ood" not in StreetsObstacles(None, "val", image_size=(32, 64), labelled=False)[0]


def test_the_named_list_of_voc_must_still_hold_the_images(tmp_path):
    folder = layouts.voc(tmp_path / "VOCdevkit/VOC2012")
    (folder / "ImageSets/Segmentation/train.txt").write_text("2007_000032\nmissing\n")
    with pytest.raises(ValueError, match=r"train\.txt lists missing, but .* no such image"):
        VOC(tmp_path, "train", labelled=False)


def test_lists_of_a_folder_and_all_of_it_need_no_labels(tmp_path):
    layouts.folder(tmp_path, NAMES, splits=("a",))
    for kind in ("images", "labels"):
        for path in (tmp_path / kind / "a").iterdir():
            path.rename(tmp_path / kind / path.name)
        (tmp_path / kind / "a").rmdir()
    shutil.rmtree(tmp_path / "labels")
    (tmp_path / "few.txt").write_text("a_b\n")
    assert [item.id for item in Folder(tmp_path, "few", labelled=False).items] == ["a_b"]
    assert len(Folder(tmp_path, "all", labelled=False)) == 2


def test_all_images_count_where_a_split_is_chosen_by_its_labels(tmp_path):
    layouts.smiyc(tmp_path)
    assert len(SMIYCAnomaly(tmp_path, "labelled")) == 2
    assert len(SMIYCAnomaly(tmp_path, "labelled", labelled=False)) == 3


def constant(value, size):
    return lambda item: torch.full(size, value, dtype=torch.uint8)


def test_another_source_takes_the_place_of_the_labels(tmp_path):
    split, _ = without_labels("camvid", tmp_path)
    asked = []

    def source(item):
        """Train ids by the item's name."""
        asked.append(item)
        return torch.full(layouts.SIZE, len(asked), dtype=torch.uint8)

    dataset = CamVid(tmp_path, split, label_source=source, classes=ROAD)
    assert dataset.num_classes == 19
    assert [dataset[index]["label"].unique().item() for index in range(3)] == [1, 2, 3]
    assert asked == dataset.originals[:3]
    assert all(isinstance(item, Item) and item.label is None for item in asked)


def test_its_labels_move_with_the_image(tmp_path):
    """A label that is a function of the image stays so through every random transform."""
    layouts.camvid(tmp_path)
    images = {item.id: CamVid(tmp_path, "train").read(place)[0]
              for place, item in enumerate(CamVid(tmp_path, "train").items)}  # fmt: skip

    def source(item):
        """Which red values are bright."""
        return (images[item.id][0] > 127).to(torch.uint8)

    cut = train_transform("resize_crop", (4, 5), flip=0.5, scale_range=(1, 1))
    dataset = CamVid(tmp_path, "train", label_source=source, transform=cut)
    for sample in dataset:
        assert torch.equal(sample["label"], (sample["image"][0] > 127).to(torch.uint8))


def test_a_label_of_another_size_is_named(tmp_path):
    layouts.camvid(tmp_path)
    dataset = CamVid(tmp_path, "train", label_source=constant(0, (6, 7)))
    with pytest.raises(ValueError, match=r"given for 0001TP_train00000 has 6x7 .* has 6x8") as said:
        dataset[0]
    assert "\n" not in str(said.value)


def test_statistics_read_the_source(tmp_path):
    toy = Toy(label_source=lambda item: torch.tensor([[0, 0, 1, 255]], dtype=torch.uint8),
              sizes=((1, 4),) * 3)  # fmt: skip
    weights = class_weights(toy, tmp_path)
    np.testing.assert_allclose(weights, [0.75, 1.5, 0], rtol=1e-6)


def test_the_cache_keeps_the_image_and_never_the_label(tmp_path):
    """A label may be made anew, and one without labels must not see those of another run."""
    made = {"value": 1}

    def source(item):
        """What was made last."""
        return torch.full((6, 8), made["value"], dtype=torch.uint8)

    common = {"transform": eval_transform((3, 4)), "cache": tmp_path}
    Toy(**common)[0]
    labelled = Toy(label_source=source, **common)
    assert labelled[0]["label"].unique().tolist() == [1]
    made["value"] = 2
    assert labelled[0]["label"].unique().tolist() == [2]
    assert Toy(label_source=source, **common)[0]["label"].unique().tolist() == [2]
    bare = Toy(labelled=False, **common)
    assert bare[0]["label"].unique().tolist() == [255]
    assert bare[0]["label"].shape == (3, 4)
    assert torch.equal(bare[0]["image"], labelled[0]["image"])
    assert Toy(**common)[0]["label"].max() < 3
    assert len(list(tmp_path.glob("*.bin"))) == 2  # with labels, and the images alone


def test_a_fingerprint_without_labels_is_that_of_the_images_alone(tmp_path):
    layouts.camvid(tmp_path)
    first = CamVid(tmp_path, "train", labelled=False)
    source = CamVid(tmp_path, "train", label_source=constant(0, layouts.SIZE))
    assert first.fingerprint() == source.fingerprint() != CamVid(tmp_path, "train").fingerprint()
    shutil.rmtree(tmp_path / "trainannot")
    assert CamVid(tmp_path, "train", labelled=False).fingerprint() == first.fingerprint()


def test_target_images_do_not_depend_on_their_labels(tmp_path):
    layouts.camvid(tmp_path)
    cut = target_transform((3, 4), (6, 8), flip=0.5)
    seen = [CamVid(tmp_path, "train", transform=cut, labelled=flag) for flag in (True, False)]
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first["image"], second["image"])
