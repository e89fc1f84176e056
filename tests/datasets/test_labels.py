from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.labels import LabelMap, ranges

FILE = Path("somewhere/a.png")


@pytest.fixture
def label_map():
    return LabelMap({0: 255, 7: 0, 8: 1, 9: 1, 10: 1, 255: 255}, ("road", "kerb", "sky"), "town")


def test_every_id_has_one_meaning(label_map):
    raw = torch.tensor([[0, 7, 8], [9, 10, 255]], dtype=torch.uint8)
    assert label_map.encode(raw, FILE).tolist() == [[255, 0, 1], [1, 1, 255]]
    assert label_map.encode(raw, FILE).dtype == torch.uint8


def test_all_256_values_are_mapped_or_refused(label_map):
    for value in range(256):
        raw = torch.full((2, 2), value, dtype=torch.uint8)
        if value in label_map.train_ids:
            assert (label_map.encode(raw, FILE) == label_map.train_ids[value]).all()
        else:
            with pytest.raises(ValueError, match=f"a.png: label value {value} outside"):
                label_map.encode(raw, FILE)


def test_the_error_names_file_values_and_map(label_map):
    raw = torch.tensor([[1, 2, 3, 7, 225]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="label values") as caught:
        label_map.encode(raw, FILE)
    assert str(caught.value) == (
        "somewhere/a.png: label values 1-3, 225 outside the classes of town, whose ids are "
        "7 = road; 8-10 = kerb; 0, 255 = void"
    )


def test_a_mask_of_0_and_255_gets_a_hint():
    label_map = LabelMap({1: 0, 2: 1, 3: 2}, ("a", "b", "c"), "town")
    assert "mask of one object" in label_map.problem({0, 255})
    assert "mask of one object" not in label_map.problem({0, 1, 255})
    assert not LabelMap({0: 0, 255: 1}, ("a", "b"), "polyps").problem({0, 255})
    assert not LabelMap({1: 0}, ("a", "b"), "polyps").binary_hint({0, 255})


def test_the_map_reads_well(label_map):
    assert str(label_map) == "7 = road; 8-10 = kerb; 0, 255 = void"
    assert label_map.raw_ids(1) == [8, 9, 10]
    assert label_map.raw_ids(2) == []


@pytest.mark.parametrize(
    ("values", "text"),
    [([], ""), ([4], "4"), ([4, 5], "4, 5"), ([0, 1, 2, 3, 7, 9, 10], "0-3, 7, 9, 10")],
)
def test_ranges(values, text):
    assert ranges(values) == text


def test_unknown_objects_among_all_256_ids(label_map):
    table = label_map.ood_table((0,))
    assert table.shape == (256,)
    assert table.dtype == np.uint8
    for raw in range(256):
        expected = 1 if raw == 0 else 0 if raw in (7, 8, 9, 10) else 255
        assert table[raw] == expected


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (9, "9 is class kerb, a known class; its ids of no class are 0, 255"),
        (3, "its label ids are 7 = road; 8-10 = kerb; 0, 255 = void"),
        (300, "its label ids are 7 = road"),
    ],
)
def test_an_id_that_cannot_be_unknown(label_map, raw, problem):
    with pytest.raises(ValueError, match=f"{raw} cannot be out of distribution in town: {problem}"):
        label_map.ood_table((0, raw))


def test_the_table_holds_no_train_id_twice(label_map):
    assert set(np.unique(label_map.table)) == {0, 1, 254, 255}
