import numpy as np
import pytest

from datasets.items import (
    Item,
    NamedSplit,
    SampleKey,
    choose_scenes,
    did_you_mean,
    refuse_repeated_ids,
)

ITEMS = [Item(f"{scene}{index}", None, None, scene) for scene in "cab" for index in range(2)]


def test_scenes_are_chosen_in_the_order_of_the_items():
    assert [item.id for item in choose_scenes(ITEMS, ("b", "c"), "x")] == ["c0", "c1", "b0", "b1"]


def test_scenes_are_whole_names():
    items = [Item(scene, None, None, scene) for scene in ("rain", "train", "trainval")]
    assert [item.id for item in choose_scenes(items, ("rain",), "x")] == ["rain"]


def test_an_unknown_scene_is_shown_twenty_others():
    items = [Item(str(number), None, None, f"{number:02}") for number in range(25)]
    with pytest.raises(ValueError, match="town has no scene") as caught:
        choose_scenes(items, ("03", "q"), "town")
    listed = ", ".join(f"{number:02}" for number in range(20))
    assert str(caught.value) == f"town has no scene 'q'; its scenes are {listed} and 5 more"


def test_a_data_set_without_scenes_says_so():
    with pytest.raises(ValueError, match="^voc is not divided into scenes"):
        choose_scenes([Item("a", None, None), Item("b", None, None)], ("a",), "voc")


def test_a_named_split_without_scenes_is_the_whole_folder():
    assert NamedSplit("val").choose(ITEMS, "x") == ITEMS
    assert [item.id for item in NamedSplit("val", ("a",)).choose(ITEMS, "x")] == ["a0", "a1"]
    with pytest.raises(ValueError, match="x has no scene 'd'"):
        NamedSplit("val", ("a", "d")).choose(ITEMS, "x")


def test_the_nearest_name():
    assert did_you_mean("trian", ("val", "train")) == " (did you mean 'train'?)"
    assert did_you_mean("q", ("val", "train")) == ""


def test_a_key_without_place_draws_from_epoch_and_index_alone():
    for epoch, index in ((0, 0), (3, 7)):
        seeds = np.random.SeedSequence(5, spawn_key=(epoch, index))
        expected = np.random.default_rng(seeds).random(4)
        keys = (SampleKey(epoch, index), SampleKey(epoch, index, (3, 4)))
        assert all((key.generator(5).random(4) == expected).all() for key in keys)
    assert SampleKey.of(4) == SampleKey(0, 4)
    assert SampleKey.of(SampleKey(1, 2, (3, 4), 5)) == SampleKey(1, 2, (3, 4), 5)
    assert SampleKey.of(-1, 12) == SampleKey.of((0, 11)) == SampleKey(0, 11)
    with pytest.raises(IndexError):
        SampleKey.of(12, 12)


def test_every_place_draws_for_itself():
    keys = [SampleKey(0, 0), *(SampleKey(0, 0, None, place) for place in range(50))]
    assert len({key.generator(5).random() for key in keys}) == 51


def test_repeated_ids():
    refuse_repeated_ids(ITEMS)
    with pytest.raises(ValueError, match="have the same name"):
        refuse_repeated_ids([*ITEMS, ITEMS[0]])
