import cv2
import numpy as np
import pytest

from datasets.files import read_first_channel
from datasets.synthia import SYNTHIA
from datasets.taxonomy import ROAD
from datasets.taxonomy_adaptation import SYNTHIA_13, SYNTHIA_16
from tests.datasets import layouts


def test_the_id_is_in_the_first_of_three_channels_of_16_bits(tmp_path):
    dataset = SYNTHIA(layouts.synthia(tmp_path), "train")
    assert dataset.read_raw_label(0)[0].tolist() == [3, 11, 0, 22] * 2
    assert dataset.read(2)[1][0].tolist() == [0, 18, 255, 255] * 2
    assert [item.id for item in dataset.items] == ["0000000", "0000001", "0000002"]


def test_every_id_has_its_class(tmp_path):
    classes = {
        **{1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation"},
        **{7: "pole", 8: "car", 9: "traffic sign", 10: "person", 11: "bicycle"},
        **{12: "motorcycle", 15: "traffic light", 16: "terrain", 17: "rider", 18: "truck"},
        **{19: "bus", 20: "train", 21: "wall"},
    }
    label_map = SYNTHIA(layouts.synthia(tmp_path), "train").label_map
    for label in range(256):
        train = label_map.table[label]
        assert (ROAD[train].name if train != 255 else None) == classes.get(label)


def test_the_subsets_that_results_are_averaged_over():
    assert SYNTHIA_16 == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
    assert SYNTHIA_13 == (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
    left_out = {entry.name for entry in ROAD} - {ROAD[train].name for train in SYNTHIA_16}
    assert left_out == SYNTHIA.unannotated == {"terrain", "truck", "train"}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_one_channel_is_read_as_it_is(tmp_path, kind):
    ids = layouts.striped([1, 21]).astype(kind)
    cv2.imwrite(str(tmp_path / "a.png"), ids)
    assert (read_first_channel(tmp_path / "a.png") == ids).all()
    assert read_first_channel(tmp_path / "a.png").dtype == np.uint8


def test_bad_labels_are_named(tmp_path):
    layouts.synthia(tmp_path)
    folder = tmp_path / "GT/LABELS"
    layouts.write_channels(folder / "0000000.png", np.full(layouts.SIZE, 300), np.uint16)
    layouts.truncate(folder / "0000001.png")
    layouts.write_channels(folder / "0000002.png", layouts.striped([3], (5, 8)), np.uint16)
    dataset = SYNTHIA(tmp_path, "train")
    for index, said in enumerate(("ids up to 300", "cannot be decoded", "5x8 pixels")):
        with pytest.raises(ValueError, match=rf"000000{index}\.png.*{said}"):
            dataset.read(index)
