import pytest
import torch

from datasets.additions import label_from, of_size
from datasets.items import Item

ITEM = Item("a", None, None)


def test_without_a_source_a_label_is_void():
    label = label_from(None, ITEM, (2, 3))
    assert label.tolist() == [[255] * 3] * 2
    assert label.dtype == torch.uint8


def test_a_source_is_asked_for_the_item_and_must_have_its_size():
    asked = []
    label = torch.arange(6, dtype=torch.uint8).view(2, 3)
    assert label_from(lambda item: asked.append(item) or label, ITEM, (2, 3)) is label
    assert asked == [ITEM]
    with pytest.raises(ValueError, match=r"given for a has 2x3 pixels, its image a has 3x2"):
        label_from(lambda item: label, ITEM, (3, 2))


def test_a_weight_map_must_have_the_size_of_its_label():
    weight = torch.ones(2, 3)
    assert of_size(weight, torch.zeros(2, 3), ITEM) is weight
    with pytest.raises(ValueError, match="weight map of a has 2x3 pixels, its label 3x3"):
        of_size(weight, torch.zeros(3, 3), ITEM)
