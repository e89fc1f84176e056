import pytest

from datasets.gta5 import GTA5
from datasets.taxonomy import ROAD
from tests.datasets import layouts


def test_ids_of_palette_labels_become_train_ids(tmp_path):
    dataset = GTA5(layouts.gta5(tmp_path), "train")
    image, label = dataset.read(1)
    assert label[0].tolist() == [0, 1, 18, 255, 0, 1, 18, 255]
    assert image.shape == (3, *layouts.SIZE)
    assert [item.id for item in dataset.items] == ["00001", "00002", "00003"]
    assert dataset.classes == ROAD


def test_every_label_id_has_the_train_id_of_cityscapes(tmp_path):
    label_ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    table = GTA5(layouts.gta5(tmp_path), "train").label_map.table.tolist()
    assert [table[label] for label in label_ids] == list(range(19))
    assert {table[label] for label in set(range(256)) - set(label_ids)} == {255}


def test_every_fiftieth_image_is_for_validation(tmp_path):
    layouts.gta5(tmp_path, count=101)
    train, part, val = (GTA5(tmp_path, split) for split in ("train", "train_part", "val"))
    assert [item.id for item in val.items] == ["00001", "00051", "00101"]
    assert sorted(part.items + val.items) == train.items
    assert not part.origins() & val.origins()


def test_mistakes_in_the_files_are_one_line_that_names_them(tmp_path):
    layouts.gta5(tmp_path)
    (tmp_path / "labels/00002.png").unlink()
    with pytest.raises(ValueError, match=r"image without label: .*images/00002\.png"):
        GTA5(tmp_path, "train")
    layouts.write_label(tmp_path / "labels/00002.png", layouts.striped([7], (6, 9)))
    with pytest.raises(ValueError, match=r"labels/00002\.png has 6x9 .*images/00002\.png has 6x8"):
        GTA5(tmp_path, "train")[1]
    layouts.truncate(tmp_path / "images/00003.png")
    with pytest.raises(ValueError, match=r"00003\.png cannot be decoded: truncated") as said:
        GTA5(tmp_path, "train")[2]
    assert "\n" not in str(said.value)
