import pickle
import re

import pytest
import torch

from datasets.acdc import ACDC
from datasets.base import SampleKey
from datasets.camvid import CamVid
from datasets.cityscapes import Cityscapes
from datasets.folder import Folder
from datasets.idd import IDD
from datasets.joined import Joined, label_of
from datasets.loaders import eval_batches
from datasets.lost_and_found import LostAndFound
from datasets.road_anomaly import RoadAnomaly
from datasets.streets import Streets
from datasets.transforms import eval_transform
from tests.datasets import layouts
from tests.datasets.toys import Shifted, Toy

SMALL = eval_transform((6, 8))


@pytest.fixture
def city(tmp_path):
    root = layouts.cityscapes(tmp_path / "city", ("frankfurt", "lindau"), "val")

    def build(split="val", **options):
        return Cityscapes(root, split, transform=SMALL, **options)

    return build


@pytest.fixture
def weather(tmp_path):
    root = layouts.acdc(tmp_path / "weather", "labelIds", (7, 5, 0, 26))

    def build(split="val", **options):
        return ACDC(root, split, transform=SMALL, **options)

    return build


def test_the_samples_of_all_parts_one_after_the_other(city, weather):
    parts = [city(), weather(), Streets(None, "val", transform=SMALL, num_images=3)]
    joined = Joined(parts)
    assert len(joined) == len(joined.items) == 4 + 8 + 3
    alone = [part[index] for part in parts for index in range(len(part))]
    for index, expected in enumerate(alone):
        sample = joined[index]
        assert torch.equal(sample["image"], expected["image"])
        assert torch.equal(sample["label"], expected["label"])
        names = ("id", "dataset", "scene", "condition")
        assert [sample[key] for key in names] == [expected[key] for key in names]
        assert sample["id"] == joined.items[index].id
        assert joined.size(index) == (6, 8)
    assert joined[-1]["id"] == alone[-1]["id"]
    assert len(list(joined)) == len(alone)


def test_it_reads_as_one_data_set(city, weather):
    first, second = city(), weather("train")
    joined = Joined([first, second, weather("relis_cal", condition="fog")])
    assert joined.name == "cityscapes+acdc"
    assert joined.split == "val+train+relis_cal"
    assert joined.class_names == first.class_names
    assert joined.num_classes == 19
    assert torch.equal(joined.palette, first.palette)
    assert joined.transform == SMALL
    assert joined.origins() >= first.origins() | second.origins()
    assert len(joined.origins()) == len(joined)
    assert torch.equal(joined.read(4)[0], second.read(0)[0])
    assert torch.equal(joined.read_raw_label(4), second.read_raw_label(0))


def test_sizes_are_those_of_the_parts():
    class Other(Toy):
        name = "other"

    small, large = Toy(sizes=((4, 6),) * 2), Other(sizes=((5, 7), (8, 8)))
    joined = Joined([small, Joined([large])])
    assert joined.parts == (small, large)
    assert [item.id for item in joined.items] == [
        "toy/item0",
        "toy/item1",
        "other/item0",
        "other/item1",
    ]
    assert [joined.size(index) for index in range(4)] == [(4, 6), (4, 6), (5, 7), (8, 8)]


def test_random_transforms_see_the_epoch():
    toy = Toy()
    joined = Joined([toy])
    assert torch.equal(joined[SampleKey(3, 5)]["image"], toy[SampleKey(3, 5)]["image"])


def test_batches_hold_every_image_once(city, weather):
    joined = pickle.loads(pickle.dumps(Joined([city(), weather()])))
    batches = list(eval_batches(joined, batch_size=5, num_workers=1))
    ids = [name for batch in batches for name in batch["id"]]
    assert ids == [item.id for item in joined.items]
    assert {name for batch in batches for name in batch["dataset"]} == {"cityscapes", "acdc"}


def test_repeated_ids_get_the_folder_of_their_part(city, weather):
    plain, foggy = city(), city(appearance=Shifted(1, "fog:3"))
    joined = Joined([plain, foggy, weather(condition="night")])
    ids = [item.id for item in joined.items]
    name = "frankfurt_000000_000000"
    assert ids[0] == f"cityscapes/{name}"
    assert ids[4] == f"cityscapes_fog-3/{name}"
    assert ids[8] == "acdc_night/GOPRnightval_frame_000000"
    assert len(set(ids)) == len(joined)
    assert joined[4]["id"] == ids[4]
    assert torch.equal(joined[4]["image"], foggy[0]["image"])
    assert joined.origins() == plain.origins() | weather(condition="night").origins()


def test_parts_of_one_label_are_numbered(tmp_path):
    roots = [
        layouts.folder(tmp_path / name, ["a", "b"], splits=("train",)) for name in ("one", "two")
    ]
    joined = Joined([Folder(root, "train") for root in roots])
    assert [item.id for item in joined.items] == [
        "folder/train_a",
        "folder/train_b",
        "folder_2/train_a",
        "folder_2/train_b",
    ]


def test_labels_are_safe_in_a_path(weather):
    assert label_of(weather()) == "acdc"
    assert label_of(weather(condition="snow")) == "acdc_snow"
    snowy = weather(condition="snow", appearance=Shifted(1, "fog:3"))
    assert label_of(snowy) == "acdc_snow+fog-3"
    assert label_of(weather(appearance=Shifted(1, "../x y"))) == "acdc_..-x-y"


def test_the_fingerprint_is_that_of_all_parts(city, weather):
    def fingerprint(*parts):
        return Joined(parts).fingerprint()

    prints = [
        fingerprint(city(), weather()),
        fingerprint(weather(), city()),
        fingerprint(city()),
        fingerprint(city(), weather("train")),
        fingerprint(city(), weather(condition="fog")),
        fingerprint(city(appearance=Shifted(1)), weather()),
        fingerprint(city(appearance=Shifted(2)), weather()),
    ]
    assert len(set(prints)) == len(prints)
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in prints)
    assert fingerprint(city(), weather()) == prints[0]
    looks = [Joined([city(appearance=look)]).content_key() for look in (None, Shifted(1))]
    assert looks[0] == looks[1]


def test_an_image_that_would_count_twice_is_refused(city):
    Joined([city("relis_test"), city(scenes=["lindau"])])
    with pytest.raises(
        ValueError,
        match=r"^frankfurt_000000_000000 is in both cityscapes \(split relis_test\) and cityscapes "
        r"\(split val\) and would count twice",
    ):
        Joined([city("relis_test"), city()])
    with pytest.raises(ValueError, match=r"^marienfurt_000000_clear is in both streets"):
        Joined([Streets(None, split, transform=SMALL) for split in ("relis_cal", "val")])


def test_other_classes_are_refused(city, tmp_path):
    camvid = CamVid(layouts.camvid(tmp_path / "camvid"), "val", transform=SMALL)
    with pytest.raises(
        ValueError, match=r"^cityscapes \(19 classes\) and camvid \(11\) cannot be joined, .*bicycl"
    ):
        Joined([city(), camvid])


def test_unknown_objects_of_one_part_only(city, weather, tmp_path):
    parts = [city(), weather(ood_ids=(5,)), IDD(layouts.idd(tmp_path, "1"), "train", ood_ids=(8,))]
    parts[2].transform = SMALL
    joined = Joined(parts)
    rows = [joined[index]["ood"][0, :4].tolist() for index in (0, 4, 12)]
    assert rows == [[0, 255, 0, 255], [0, 1, 255, 0], [0, 1, 255, 0]]
    assert all(joined[index]["ood"].dtype == torch.uint8 for index in (0, 4))
    (batch,) = eval_batches(joined, batch_size=len(joined), num_workers=0)
    assert batch["ood"].shape == batch["label"].shape
    assert torch.equal(batch["ood"] == 0, batch["label"] != 255)
    assert "ood" not in Joined(parts[:1])[0]


@pytest.fixture
def anomalies(tmp_path):
    lost = layouts.lost_and_found(tmp_path / "lost")
    photos = layouts.road_anomaly(tmp_path / "photos")
    return (
        LostAndFound(lost, "test", transform=SMALL),
        RoadAnomaly(photos, "test", transform=SMALL),
    )


def test_parts_without_classes_are_joined_with_each_other(anomalies):
    joined = pickle.loads(pickle.dumps(Joined(anomalies)))
    assert joined.name == "lost_and_found+road_anomaly"
    assert joined.num_classes == 0
    assert joined.palette.shape == (0, 3)
    assert len(joined) == 4 + 2
    assert joined[0]["ood"][0, :4].tolist() == [0, 1, 255, 255]
    assert joined[4]["ood"][0, :4].tolist() == [0, 1, 0, 1]
    assert joined[4]["dataset"] == "road_anomaly"
    (batch,) = eval_batches(joined, batch_size=6, num_workers=0)
    assert batch["ood"].shape == (6, 6, 8)
    assert (batch["label"] == 255).all()
    assert Joined(anomalies).fingerprint() != Joined(anomalies[::-1]).fingerprint()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_classes_are_those_of_the_parts_that_have_some(anomalies, tmp_path, place):
    camvid = CamVid(layouts.camvid(tmp_path / "camvid"), "val", transform=SMALL)
    parts = [*anomalies]
    parts.insert(place, camvid)
    joined = Joined(parts)
    assert joined.class_names == camvid.class_names
    assert torch.equal(joined.palette, camvid.palette)
    samples = [joined[index] for index in range(len(joined))]
    for sample in samples:
        if sample["dataset"] == "camvid":
            assert torch.equal(sample["ood"] == 0, sample["label"] != 255)
            assert torch.equal(sample["ood"] == 255, sample["label"] == 255)
        else:
            assert (sample["label"] == 255).all()
            assert (sample["ood"] == 1).any()
    assert {sample["dataset"] for sample in samples} == {part.name for part in parts}


def test_parts_without_classes_hide_no_difference_between_the_others(city, anomalies, tmp_path):
    camvid = CamVid(layouts.camvid(tmp_path / "camvid"), "val", transform=SMALL)
    with pytest.raises(ValueError, match=r"^cityscapes \(19 classes\) and camvid \(11\) cannot"):
        Joined([anomalies[0], city(), anomalies[1], camvid])


def test_parts_without_classes_have_no_server(city, anomalies):
    ids = torch.tensor([[0, 18, 255]], dtype=torch.uint8)
    assert Joined([anomalies[0], city()]).decode_label(ids).tolist() == [[7, 33, 0]]
    assert torch.equal(Joined(anomalies).decode_label(ids), ids)


def test_ids_for_a_server_that_all_parts_share(city, weather):
    ids = torch.tensor([[0, 18, 255]], dtype=torch.uint8)
    streets = Streets(None, "val", transform=SMALL)
    assert Joined([city(), streets]).decode_label(ids).tolist() == [[7, 33, 0]]
    with pytest.raises(ValueError, match="servers of cityscapes and acdc expect other label ids"):
        Joined([city(), weather()]).decode_label(ids)


def test_each_part_has_its_cache(city, weather, tmp_path):
    cache = tmp_path / "cache"
    joined = Joined([city(cache=cache), weather(cache=cache)])
    joined.prepare()
    assert sorted(path.name.split("_")[0] for path in cache.glob("*.bin")) == ["acdc", "cityscapes"]
    assert torch.equal(joined[5]["image"], weather()[1]["image"])
