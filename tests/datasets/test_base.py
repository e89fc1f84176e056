import re

import pytest
import torch

from datasets.base import Item, SampleKey
from datasets.camvid import CamVid
from datasets.transforms import eval_transform, train_transform
from tests.datasets import layouts
from tests.datasets.toys import Toy

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


def test_two_items_of_one_name_are_refused():
    class Twins(Toy):
        def files(self):
            return [Item("a", None, None), Item("a", None, None)]

    with pytest.raises(ValueError, match="have the same name"):
        Twins()


def test_other_servers_ids_are_the_train_ids():
    ids = torch.tensor([[0, 2, 255]], dtype=torch.uint8)
    assert torch.equal(Toy().decode_label(ids), ids)
