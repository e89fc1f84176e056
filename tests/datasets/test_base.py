import re

import numpy as np
import pytest
import torch

from datasets.base import Item, SampleKey
from datasets.camvid import CamVid
from datasets.streets import Streets
from datasets.transforms import eval_transform, train_transform
from tests.datasets import layouts
from tests.datasets.toys import Shifted, Toy

RANDOM = train_transform("scale_crop", (6, 6), flip=0.5, colour_jitter=0.5)


@pytest.fixture
def root(tmp_path):
    return layouts.camvid(tmp_path / "camvid")


def test_a_sample_follows_from_seed_epoch_and_index_alone():
    toy, again, other = (Toy(transform=RANDOM, seed=seed) for seed in (1, 1, 2))
    state = torch.random.get_rng_state()
    again[SampleKey(5, 0)]  # what was asked for before has no influence
    for key in (SampleKey(0, 3), SampleKey(1, 3), SampleKey(1, 4)):
        assert torch.equal(toy[key]["image"], again[key]["image"])
        assert not torch.equal(toy[key]["image"], other[key]["image"])
    assert not torch.equal(toy[SampleKey(0, 3)]["image"], toy[SampleKey(1, 3)]["image"])
    assert torch.equal(toy[3]["image"], toy[SampleKey(0, 3)]["image"])
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_centre_and_place_of_a_key_reach_the_transforms_and_end_there():
    toy = Toy(transform=train_transform("scale_crop", (1, 1), scale_range=(1.0, 1.0)))
    label = Toy()[4]["label"]
    for y, x in ((0, 0), (5, 7), (2, 3)):
        sample = toy[SampleKey(0, 4, (x, y))]
        assert sample["label"].item() == label[y, x]
        assert "centre" not in sample
    toy.transform = RANDOM
    first, again, second = (toy[SampleKey(0, 4, None, place)]["image"] for place in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, toy[SampleKey(0, 4)]["image"])


def test_the_random_transforms_draw_from_seed_epoch_and_index():
    toy = Toy(transform=RANDOM, seed=6)
    for epoch, index in ((0, 0), (2, 11)):
        seeds = np.random.SeedSequence(6, spawn_key=(epoch, index))
        expected = RANDOM(Toy()[index], np.random.default_rng(seeds))
        assert torch.equal(toy[SampleKey(epoch, index)]["image"], expected["image"])


def test_the_middle_of_a_size_is_what_samples_and_the_cache_hold(tmp_path):
    sizes = ((6, 8), (9, 4), (3, 30))
    middle, stretched = eval_transform(None, centre=(6, 8)), eval_transform((6, 8))
    plain = Toy(sizes=sizes, transform=middle, weight=lambda item: torch.ones(6, 8))
    assert [plain.size(index) for index in range(3)] == [(6, 8)] * 3
    assert plain[2]["weight"].shape == plain[2]["label"].shape == (6, 8)
    for _ in range(2):
        kept = Toy(sizes=sizes, transform=middle, cache=tmp_path)
        for index in range(3):
            assert torch.equal(kept[index]["image"], plain[index]["image"])
            assert torch.equal(kept[index]["label"], plain[index]["label"])
    other = Toy(sizes=sizes, transform=stretched, cache=tmp_path)
    assert not torch.equal(other[2]["image"], plain[2]["image"])
    assert len(list(tmp_path.glob("*.bin"))) == 2


def test_a_sample_says_where_it_comes_from():
    sample = Toy()[2]
    assert (sample["id"], sample["dataset"], sample["scene"]) == ("item2", "toy", "scene")
    assert sample["image"].shape == (3, 6, 8)
    assert sample["label"].shape == (6, 8)
    assert "weight" not in sample


def test_all_items_can_be_walked():
    assert len(list(Toy())) == len(Toy()) == 12
    assert torch.equal(Toy()[-1]["image"], Toy()[11]["image"])


def test_weights_have_the_native_or_the_resized_size():
    def weight_of(size):
        return lambda item: torch.full(size, float(item.id.removeprefix("item")))

    resized = eval_transform((3, 4))
    for size, transform in (((6, 8), None), ((6, 8), resized), ((3, 4), resized)):
        sample = Toy(weight=weight_of(size), transform=transform)[5]
        assert sample["weight"].shape == sample["label"].shape
        assert (sample["weight"] == 5).all()
    with pytest.raises(ValueError, match="weight map of item5 has 6x9 pixels, its label 6x8"):
        Toy(weight=weight_of((6, 9)))[5]


def test_classes_names_and_colours_agree(root):
    dataset = CamVid(root, "train")
    assert dataset.num_classes == len(dataset.class_names) == len(dataset.palette) == 11
    assert dataset.palette.dtype == torch.uint8
    assert dataset.palette[3].tolist() == list(dataset.classes[3].colour)


def test_the_size_is_known_without_decoding(root):
    assert CamVid(root, "train").size(0) == layouts.SIZE
    assert CamVid(root, "train", transform=eval_transform((3, 5))).size(0) == (3, 5)


def test_the_fingerprint_follows_the_files_not_the_place(root, tmp_path):
    first = CamVid(root, "train").fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert CamVid(layouts.camvid(tmp_path / "elsewhere"), "train").fingerprint() == first
    assert CamVid(root, "val").fingerprint() != first
    with (root / "train" / "0001TP_train00000.png").open("ab") as file:
        file.write(b"\0")
    assert CamVid(root, "train").fingerprint() != first


def test_an_unknown_split_names_the_nearest(root):
    with pytest.raises(
        ValueError, match=r"no split 'trian' \(did you mean 'train'\?\); its splits"
    ):
        CamVid(root, "trian")
    with pytest.raises(
        ValueError, match="camvid has no split 'q'; its splits are train, val, test"
    ):
        CamVid(root, "q")


def test_a_missing_folder_says_what_was_found_and_how_it_should_look(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(ValueError, match="does not exist") as caught:
        CamVid(tmp_path, "val")
    message = str(caught.value)
    assert f"{tmp_path}/val does not exist" in message
    assert f"{tmp_path} holds images/, readme.txt" in message
    assert f"Expected below --data_root {tmp_path}:" in message
    assert "trainannot/  0001TP_006690.png" in message


def test_a_missing_root_names_the_folder_above(tmp_path):
    (tmp_path / "camvids").mkdir()
    with pytest.raises(
        ValueError, match=rf"camvid/train does not exist; {tmp_path} holds camvids/"
    ):
        CamVid(tmp_path / "camvid", "train")


def test_an_empty_split_is_refused(tmp_path):
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match="split 'train' of camvid in .* has no images"):
        CamVid(tmp_path, "train")


def test_images_and_labels_pair_or_are_named(root):
    (root / "trainannot" / "0001TP_train00000.png").unlink()
    with pytest.raises(ValueError, match=r"image without label: .*train/0001TP_train00000\.png"):
        CamVid(root, "train")
    (root / "train" / "0001TP_train00000.png").unlink()
    assert len(CamVid(root, "train")) == 5
    (root / "train" / "0006R0_train00001.png").unlink()
    with pytest.raises(
        ValueError, match=r"label without image: .*trainannot/0006R0_train00001\.png"
    ):
        CamVid(root, "train")


def test_a_label_of_another_size_names_both_files(root):
    layouts.write_label(root / "trainannot" / "0001TP_train00000.png", layouts.filled(1, (6, 9)))
    with pytest.raises(
        ValueError,
        match=r"annot/0001TP_train00000\.png has 6x9 pixels, its image .*00000\.png has 6x8",
    ):
        CamVid(root, "train")[0]


def test_a_label_value_outside_the_classes_names_file_values_and_map(root):
    layouts.write_label(
        root / "trainannot" / "0001TP_train00000.png", layouts.striped([0, 12, 225])
    )
    with pytest.raises(
        ValueError, match=r"0001TP_train00000\.png: label values 12, 225 outside the c"
    ):
        CamVid(root, "train")[0]


def test_a_truncated_file_is_named(root):
    for index, folder in enumerate(("train", "trainannot")):
        path = sorted((root / folder).iterdir())[index]
        layouts.truncate(path)
        with pytest.raises(ValueError, match=f"{folder}/{path.name} cannot be decoded"):
            CamVid(root, "train")[index]


def test_construction_reads_no_file(root):
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    assert len(CamVid(root, "train")) == 6


def test_only_the_scenes_that_are_asked_for(root):
    everything = CamVid(root, "train")
    dataset = CamVid(root, "train", scenes=iter(("0016E5", "0006R0")))
    assert [item.id for item in dataset.items] == [
        item.id for item in everything.items if item.scene != "0001TP"
    ]
    assert dataset[0]["id"] == dataset.items[0].id
    assert torch.equal(dataset[1]["image"], everything[3]["image"])
    assert dataset.fingerprint() != everything.fingerprint()
    assert CamVid(root, "train", scenes=None).items == everything.items


def test_an_unknown_scene_names_the_nearest_and_all(root):
    with pytest.raises(
        ValueError,
        match=r"'train' of camvid has no scene '0006R' \(did you mean '0006R0'\?\); its scenes are "
        "0001TP, 0006R0, 0016E5$",
    ):
        CamVid(root, "train", scenes=("0001TP", "0006R"))


def test_origins_are_the_same_in_every_split_and_look(root):
    train = CamVid(root, "train")
    assert train.origins() == {f"camvid/{item.id}" for item in train.items}
    assert train.origins() < CamVid(root, "trainval").origins()
    assert not train.origins() & CamVid(root, "val").origins()
    assert CamVid(root, "train", appearance=Shifted(3)).origins() == train.origins()
    night = CamVid(root, "train", scenes=("0001TP",)).origins()
    assert night == CamVid(root, "dusk_train").origins() < train.origins()


@pytest.mark.parametrize("size", [None, (3, 4)])
@pytest.mark.parametrize("cached", [False, True])
def test_unknown_objects_are_marked_at_the_size_of_the_label(root, tmp_path, size, cached):
    for path in (root / "trainannot").iterdir():
        layouts.write_label(path, layouts.striped([0, 0, 11, 11, 255, 255, 10, 10]))
    plain = CamVid(root, "train", transform=eval_transform(size))
    marked = CamVid(
        root,
        "train",
        transform=eval_transform(size),
        ood_ids=(11,),
        cache=tmp_path / "cache" if cached else None,
    )
    for index in range(len(plain)):
        sample = marked[index]
        stripes = [0, 1, 255, 0] if size else [0, 0, 1, 1, 255, 255, 0, 0]
        assert (sample["ood"] == torch.tensor(stripes)).all()
        assert sample["ood"].dtype == torch.uint8
        assert sample["ood"].shape == sample["label"].shape
        assert torch.equal(sample["label"], plain[index]["label"])
        assert "ood" not in plain[index]


def test_ids_that_cannot_be_unknown_objects_are_refused(root):
    for raw, problem in (
        (8, "8 is class car, a known class; its ids of no class are 11, 255"),
        (12, "its label ids are 0 = sky"),
        (256, "its label ids are 0 = sky"),
        (-1, "its label ids are 0 = sky"),
    ):
        with pytest.raises(
            ValueError, match=f"^{raw} cannot be out of distribution in camvid: {problem}"
        ):
            CamVid(root, "train", ood_ids=(11, raw))


@pytest.mark.parametrize("cached", [False, True])
def test_an_appearance_changes_the_picture_alone(tmp_path, cached):
    cache = tmp_path / "cache" if cached else None
    transform = train_transform("resize", (5, 7), flip=0.5)
    plain = Toy(transform=transform, cache=cache)
    shifted = Toy(transform=transform, cache=cache, appearance=Shifted(3))
    for index in range(9):
        for epoch in (0, 1):
            before, after = (each[SampleKey(epoch, index)] for each in (plain, shifted))
            assert torch.equal(after["image"], Shifted(3)(before["image"], f"item{index}"))
            assert not torch.equal(after["image"], before["image"])
            assert after["label"].numpy().tobytes() == before["label"].numpy().tobytes()
            assert after["id"] == before["id"]
            assert (before["condition"], after["condition"]) == ("", "shift:1")


def test_the_cache_holds_unchanged_pictures(tmp_path):
    Toy(cache=tmp_path, appearance=Shifted(3)).prepare()
    (data,) = tmp_path.glob("*.bin")
    content = data.read_bytes()
    plain = Toy(cache=tmp_path)
    assert torch.equal(plain[4]["image"], Toy()[4]["image"])
    assert plain.reads == []
    shifted = Toy(cache=tmp_path, appearance=Shifted(5))
    assert not torch.equal(shifted[4]["image"], plain[4]["image"])
    assert list(tmp_path.glob("*.bin")) == [data]
    assert data.read_bytes() == content


def test_the_look_is_in_condition_and_fingerprint(root):
    plain = CamVid(root, "train")
    looks = [Shifted(3), Shifted(4), Shifted(3, "shift:2")]
    shifted = [CamVid(root, "train", appearance=look) for look in looks]
    prints = {dataset.fingerprint() for dataset in (plain, *shifted)}
    assert len(prints) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in prints)
    assert len({dataset.content_key() for dataset in (plain, *shifted)}) == 1
    assert {item.condition for item in shifted[2].items} == {"shift:2"}
    streets = Streets(None, "val", condition="fog", appearance=Shifted(3))
    assert {item.condition for item in streets.items} == {"fog+shift:1"}
    assert streets.fingerprint() != Streets(None, "val", condition="fog").fingerprint()
    assert streets.content_key() == Streets(None, "val", condition="fog").content_key()
    assert streets[0]["condition"] == "fog+shift:1"  # drawn in fog all the same


def test_an_appearance_without_a_lasting_repr_is_our_mistake():
    class Nameless:
        name = "nameless"

    with pytest.raises(AssertionError, match="repr"):
        Toy(appearance=Nameless()).fingerprint()


def test_two_items_of_one_name_are_refused():
    class Twins(Toy):
        def files(self):
            return [Item("a", None, None), Item("a", None, None)]

    with pytest.raises(ValueError, match="have the same name"):
        Twins()


def test_other_servers_ids_are_the_train_ids():
    ids = torch.tensor([[0, 2, 255]], dtype=torch.uint8)
    assert torch.equal(Toy().decode_label(ids), ids)
