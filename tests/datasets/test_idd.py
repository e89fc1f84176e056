import numpy as np
import pytest
import torch

from datasets.idd import IDD
from datasets.taxonomy import ROAD
from tests.datasets import layouts

TEST_SCENES = [
    *("265", "431", "175", "528", "39", "137", "538", "499", "7", "376", "37", "209", "306"),
    *("413", "380", "374", "472", "523", "446", "121", "171", "488", "278", "411", "312", "453"),
    *("110", "285", "46", "158", "426", "544", "230", "41", "520", "322", "95"),
]

# Level-3 id -> class of the published table; every other id is void.
TABLE = {
    **{0: "road", 2: "sidewalk", 4: "person", 5: "rider", 6: "motorcycle", 7: "bicycle"},
    **{9: "car", 10: "truck", 11: "bus", 14: "wall", 15: "fence", 18: "traffic sign"},
    **{19: "traffic light", 20: "pole", 22: "building", 24: "vegetation", 25: "sky"},
}


@pytest.fixture
def root(tmp_path):
    return layouts.idd(tmp_path, ("119", "426"))


def test_pairs_by_scene_under_ids_that_are_unique(root):
    dataset = IDD(root, "train")
    assert [(item.id, item.scene, item.condition) for item in dataset.items] == [
        ("119_frame0000", "119", ""),
        ("119_frame0001", "119", ""),
        ("426_frame0000", "426", ""),
        ("426_frame0001", "426", ""),
    ]
    for item in dataset.items:
        assert item.image.parent.name == item.label.parent.name == item.scene
        assert item.label.name == f"{item.image.stem[:9]}_gtFine_labellevel3Ids.png"


def test_images_may_be_jpeg_files(tmp_path):
    assert len(IDD(layouts.idd(tmp_path, ("1",), suffix=".jpg"), "train")) == 2


def test_all_256_ids_have_their_published_class(tmp_path):
    names = [entry.name for entry in ROAD]
    layouts.write_image(tmp_path / "leftImg8bit/val/1/a_leftImg8bit.png", (16, 16))
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    layouts.write_label(tmp_path / "gtFine/val/1/a_gtFine_labellevel3Ids.png", every)
    label = IDD(tmp_path, "val")[0]["label"].flatten().tolist()
    assert label == [names.index(TABLE[raw]) if raw in TABLE else 255 for raw in range(256)]
    assert not {9, 16} & set(label)
    assert set(label) == set(range(19)) - {9, 16} | {255}


def test_server_ids_are_level_3_ids(root):
    dataset = IDD(root, "train")
    train_ids = torch.arange(256, dtype=torch.uint8)
    decoded = dataset.decode_label(train_ids)
    again = dataset.encode_label(decoded, root)
    known = [train for train in range(19) if train not in (9, 16)]
    assert again[known].tolist() == known
    assert set(decoded[[9, 16, *range(19, 256)]].tolist()) == {255}


def test_the_named_splits_are_val_and_37_scenes_of_train(tmp_path):
    layouts.idd(tmp_path, [*TEST_SCENES, "4", "1", "26"])
    layouts.idd(tmp_path, ("8", "265x"), split="val")
    tested = IDD(tmp_path, "relis_test")
    assert {item.scene for item in tested.items} == set(TEST_SCENES)
    assert len(tested) == 2 * 37
    assert all("train" in item.image.parts for item in tested.items)
    fitted = IDD(tmp_path, "relis_cal")
    assert [item.id for item in fitted.items] == [item.id for item in IDD(tmp_path, "val").items]
    assert not fitted.origins() & tested.origins()


def test_a_named_split_without_one_of_its_scenes_is_refused(tmp_path):
    layouts.idd(tmp_path, TEST_SCENES[:-1])
    with pytest.raises(
        ValueError, match=r"split 'train' of idd in .* has no scene '95'.* and 16 m"
    ):
        IDD(tmp_path, "relis_test")


def test_a_label_of_another_level_is_not_taken(root):
    (root / "gtFine/train/119/frame0001_gtFine_labellevel3Ids.png").unlink()
    with pytest.raises(ValueError, match=r"image without label: .*119/frame0001_leftImg8bit\.png"):
        IDD(root, "train")


def test_the_unknown_objects_of_the_papers(root):
    ids = (0, 8, 16, 17, 23, 13, 255, 9)
    layouts.idd(root, ("119",), ids=ids)
    sample = IDD(root, "train", ood_ids=IDD.usual_ood_ids)[0]
    assert sample["ood"][0].tolist() == [0, 1, 1, 1, 1, 255, 255, 0]
    assert sample["label"][0].tolist() == [0, 255, 255, 255, 255, 255, 255, 13]
    assert IDD(root, "train", ood_ids=(8,))[0]["ood"][0].tolist()[:3] == [0, 1, 255]
