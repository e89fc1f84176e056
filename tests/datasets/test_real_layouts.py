"""Cityscapes, ACDC, VOC, Kvasir and CamVid on tiny files in their layouts, CamVid also for real."""

import hashlib
from collections import Counter
from itertools import chain
from urllib.error import URLError

import pytest
import torch

import datasets.voc
from datasets.acdc import ACDC
from datasets.camvid import CamVid
from datasets.cityscapes import Cityscapes
from datasets.kvasir import Kvasir
from datasets.voc import VOC
from tests.datasets import layouts


def row(sample):
    return sample["label"][0].tolist()


def test_cityscapes_pairs_by_city_and_maps_label_ids(tmp_path):
    dataset = Cityscapes(layouts.cityscapes(tmp_path), "train")
    assert [item.id for item in dataset.items] == [
        "aachen_000000_000000",
        "aachen_000000_000001",
        "bonn_000000_000000",
        "bonn_000000_000001",
    ]
    assert dataset[2]["scene"] == "bonn"
    assert row(dataset[0])[:4] == [0, 255, 18, 255]


def test_cityscapes_server_ids_are_label_ids(tmp_path):
    dataset = Cityscapes(layouts.cityscapes(tmp_path), "train")
    raw = dataset.read_raw_label(0)
    decoded = dataset.decode_label(dataset.encode_label(raw, tmp_path))
    assert decoded[0, :4].tolist() == [7, 0, 33, 0]
    assert decoded.dtype == torch.uint8


def test_cityscapes_licence_plates_are_void_and_unknown_ids_refused(tmp_path):
    root = layouts.cityscapes(tmp_path)
    label = root / "gtFine/train/aachen/aachen_000000_000000_gtFine_labelIds.png"
    layouts.write_label(label, layouts.striped([255, 26]))
    assert row(Cityscapes(root, "train")[0])[:2] == [255, 13]
    layouts.write_label(label, layouts.striped([34, 26]))
    with pytest.raises(ValueError, match=r"labelIds\.png: label value 34 outside .* 26 = car"):
        Cityscapes(root, "train")[0]


def test_cityscapes_without_its_labels_shows_the_tree(tmp_path):
    layouts.write_image(tmp_path / "leftImg8bit/val/bonn/bonn_0_0_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"gtFine/val does not exist; .* holds leftImg8bit/\.\n"):
        Cityscapes(tmp_path, "val")


def test_cityscapes_named_splits_divide_val_by_whole_names_of_cities(tmp_path):
    layouts.cityscapes(tmp_path, ("frankfurt", "lindau", "munster", "munsterland"), "val")
    layouts.cityscapes(tmp_path, ("frankfurt", "munster"), "train")
    fitted, tested = (Cityscapes(tmp_path, split) for split in ("relis_cal", "relis_test"))
    assert Counter(item.scene for item in fitted.items) == {"munster": 2, "lindau": 2}
    assert Counter(item.scene for item in tested.items) == {"frankfurt": 2}
    assert all("val" in item.image.parts for item in (*fitted.items, *tested.items))
    assert not fitted.origins() & tested.origins()
    assert fitted.origins() < Cityscapes(tmp_path, "val").origins()


def test_cityscapes_named_split_without_its_city_says_so(tmp_path):
    layouts.cityscapes(tmp_path, ("frankfurt", "munster"), "val")
    with pytest.raises(
        ValueError, match="split 'val' of cityscapes .* has no scene 'lindau'.*; its"
    ):
        Cityscapes(tmp_path, "relis_cal")


CITIES = (
    *("aachen", "bochum", "bremen", "cologne", "darmstadt", "dusseldorf", "erfurt", "hamburg"),
    *("hanover", "jena", "krefeld", "monchengladbach", "strasbourg", "stuttgart", "tubingen"),
    *("ulm", "weimar", "zurich"),
)


def test_cityscapes_folds_are_the_published_ones(tmp_path):
    root = layouts.cityscapes(tmp_path, CITIES, "train")
    layouts.cityscapes(root, ("munster", "frankfurt", "lindau"), "val")
    held_out = {}
    for fold in range(3):
        train, val = (Cityscapes(root, f"{part}_cv{fold}") for part in ("train", "val"))
        held_out[fold] = sorted({item.scene for item in val.items})
        assert len(val) == 6
        assert len(train) == 36
        assert not train.origins() & val.origins()
        assert val[0]["label"].shape == layouts.SIZE
    assert held_out == {
        0: ["frankfurt", "lindau", "munster"],
        1: ["darmstadt", "dusseldorf", "erfurt"],
        2: ["monchengladbach", "strasbourg", "stuttgart"],
    }
    assert Cityscapes(root, "train_cv0").items == Cityscapes(root, "train").items
    assert Cityscapes(root, "val_cv0").items == Cityscapes(root, "val").items
    assert {"frankfurt", "lindau"} < {item.scene for item in Cityscapes(root, "train_cv2").items}


def test_cityscapes_folds_of_few_cities(tmp_path):
    root = layouts.cityscapes(tmp_path, ("aachen", "bonn", "ulm", "zurich"), "train")
    layouts.cityscapes(root, ("lindau",), "val")
    places = [{item.scene for item in Cityscapes(root, f"val_cv{k}").items} for k in range(3)]
    assert places == [{"lindau"}, {"aachen"}, {"ulm"}]  # of five, at 0, 5 // 3 and 10 // 3


def coarse(root, images="leftImg8bit", labels="gtCoarse"):
    for city in ("augsburg", "wurzburg"):
        stem = f"{city}_000000_000003"
        layouts.write_image(root / images / "train_extra" / city / f"{stem}_leftImg8bit.png")
        folder = root / labels / "train_extra" / city
        layouts.write_label(folder / f"{stem}_gtCoarse_labelIds.png", layouts.striped([7, 33]))
        layouts.write_image(folder / f"{stem}_gtCoarse_color.png")
    return root


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("leftImg8bit", "gtCoarse"),
        ("leftImg8bit_trainextra/leftImg8bit", "gtCoarse/gtCoarse"),
        ("leftImg8bit", "gtCoarse/gtCoarse"),
    ],
)
def test_cityscapes_reads_coarse_annotations(tmp_path, images, labels):
    dataset = Cityscapes(coarse(tmp_path, images, labels), "train_extra")
    assert [item.scene for item in dataset.items] == ["augsburg", "wurzburg"]
    assert row(dataset[0])[:2] == [0, 18]


def test_cityscapes_may_lie_in_the_folders_of_its_archives(tmp_path):
    layouts.cityscapes(tmp_path / "plain", ("bonn",))
    layouts.cityscapes(tmp_path / "plain", ("lindau",), "val")
    for kind in ("leftImg8bit", "gtFine"):
        target = tmp_path / "kept" / f"{kind}_trainvaltest" / kind
        target.parent.mkdir(parents=True)
        (tmp_path / "plain" / kind).rename(target)
    coarse(tmp_path / "kept", "leftImg8bit_trainextra/leftImg8bit", "gtCoarse/gtCoarse")
    lengths = [len(Cityscapes(tmp_path / "kept", s)) for s in ("train", "val_cv0", "train_extra")]
    assert lengths == [2, 2, 2]


def test_cityscapes_without_coarse_annotations_shows_the_tree(tmp_path):
    layouts.cityscapes(tmp_path)
    with pytest.raises(ValueError, match="leftImg8bit/train_extra does not exist") as caught:
        Cityscapes(tmp_path, "train_extra")
    assert "gtCoarse/train_extra/augsburg/augsburg_000000_000000_gtCoarse" in str(caught.value)


def test_acdc_named_splits_are_the_folders_val_and_train(tmp_path):
    root = layouts.acdc(tmp_path, archives=True)  # whose own name holds "train" and "val"
    for named, folder in (("relis_cal", "val"), ("relis_test", "train")):
        for condition in (None, "rain"):
            dataset = ACDC(root, named, condition=condition)
            official = ACDC(root, folder, condition=condition)
            assert dataset.items == official.items
            assert {item.image.parent.parent.name for item in dataset.items} == {folder}
            assert {item.condition for item in dataset.items} >= {condition or "snow"}
    assert len(ACDC(root, "relis_cal", condition="rain")) == 2
    assert not ACDC(root, "relis_cal").origins() & ACDC(root, "relis_test").origins()


def test_acdc_by_sequence(tmp_path):
    root = layouts.acdc(tmp_path)
    dataset = ACDC(root, "val", scenes=("GOPRfogval", "GOPRsnowval"))
    assert Counter(item.condition for item in dataset.items) == {"fog": 2, "snow": 2}
    with pytest.raises(ValueError, match=r"no scene 'GOPRfogvai' \(did you mean 'GOPRfogval'\?\)"):
        ACDC(root, "val", scenes=["GOPRfogvai"])


def test_acdc_needs_label_ids_to_tell_unknown_objects(tmp_path):
    layouts.acdc(tmp_path)
    with pytest.raises(ValueError, match=r"gt holds train ids, .* put the files \*_gt_labelIds"):
        ACDC(tmp_path, "val", ood_ids=(5,))
    layouts.acdc(tmp_path, "labelIds", (7, 5, 0))
    sample = ACDC(tmp_path, "val", ood_ids=(5,))[0]
    assert sample["ood"][0, :3].tolist() == [0, 1, 255]
    assert row(sample)[:3] == [0, 255, 255]


@pytest.mark.parametrize("archives", [False, True])
@pytest.mark.parametrize(
    ("kind", "ids"), [("labelTrainIds", (0, 18, 255)), ("labelIds", (7, 33, 0))]
)
def test_acdc_reads_either_layout_and_either_kind_of_label(tmp_path, archives, kind, ids):
    dataset = ACDC(layouts.acdc(tmp_path, kind, ids, archives), "val")
    assert Counter(item.condition for item in dataset.items) == dict.fromkeys(
        ("fog", "night", "rain", "snow"), 2
    )
    assert dataset.items[0].id == "GOPRfogval_frame_000000"
    assert dataset.items[0].scene == "GOPRfogval"
    assert row(dataset[3])[:3] == [0, 18, 255]


def test_acdc_prefers_train_ids_where_both_are(tmp_path):
    layouts.acdc(tmp_path, "labelIds", (7, 33, 0))
    layouts.acdc(tmp_path, "labelTrainIds", (4, 4, 4))
    dataset = ACDC(tmp_path, "train")
    assert len(dataset) == 8
    assert set(row(dataset[0])) == {4}


def test_acdc_by_condition(tmp_path):
    root = layouts.acdc(tmp_path)
    dataset = ACDC(root, "train", condition="rain")
    assert {item.condition for item in dataset.items} == {"rain"}
    assert len(dataset) == 2
    assert all("train" in item.image.parts for item in dataset.items)
    with pytest.raises(ValueError, match="no condition 'sleet'; its conditions are fog, night, r"):
        ACDC(root, "train", condition="sleet")
    with pytest.raises(
        ValueError, match="acdc has no split 'test'; its splits are train, val, relis_cal, r"
    ):
        ACDC(root, "test")


def test_acdc_server_ids_are_train_ids(tmp_path):
    ids = torch.tensor([[0, 18]], dtype=torch.uint8)
    assert torch.equal(ACDC(layouts.acdc(tmp_path), "val").decode_label(ids), ids)


def test_acdc_with_a_condition_missing_names_it(tmp_path):
    root = layouts.acdc(tmp_path)
    (root / "gt" / "snow" / "val").rename(root / "gt" / "snow" / "other")
    with pytest.raises(ValueError, match="gt/snow/val does not exist"):
        ACDC(root, "val")
    assert len(ACDC(root, "val", condition="fog")) == 2


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "VOC2012", "TrainVal/VOCdevkit/VOC2012"])
def test_voc_reads_palette_labels_wherever_it_was_unpacked(tmp_path, place):
    layouts.voc(tmp_path / place)
    dataset = VOC(tmp_path, "train")
    assert [item.id for item in dataset.items] == ["2007_000032", "2007_000039"]
    assert row(dataset[0])[:4] == [0, 15, 20, 255]
    assert len(VOC(tmp_path / place, "train")) == 2


def test_voc_years_are_kept_apart(tmp_path):
    layouts.voc(tmp_path / "VOCdevkit/VOC2008", names=("a",))
    assert len(VOC(tmp_path, "train", year="2008")) == 1
    with pytest.raises(ValueError, match=r"VOCdevkit/VOC2012 does not exist; .* holds VOC2008/"):
        VOC(tmp_path, "train")
    with pytest.raises(ValueError, match="voc has no year '2013'; its years are 2007, 2008"):
        VOC(tmp_path, "train", year="2013")


@pytest.mark.parametrize(
    "list_file", ["train_aug.txt", "VOC2012/ImageSets/Segmentation/trainaug.txt"]
)
@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png"])
def test_voc_2012_aug_trains_on_the_extra_labels(tmp_path, list_file, line):
    layouts.voc(tmp_path / "VOC2012")
    names = ("2007_000032", "2008_000001")
    layouts.voc(tmp_path / "VOC2012", names=names, labels="SegmentationClassAug")
    lists = tmp_path / "VOC2012/ImageSets/Segmentation"
    (lists / "val.txt").write_text("2007_000039\n\n")
    (tmp_path / list_file).write_text("".join(f"{line.format(n, n)}\n" for n in names))
    train = VOC(tmp_path, "train", year="2012_aug")
    assert {item.label.parent.name for item in train.items} == {"SegmentationClassAug"}
    assert [item.id for item in train.items] == list(names)
    val = VOC(tmp_path, "val", year="2012_aug")
    assert [(item.id, item.label.parent.name) for item in val.items] == [
        ("2007_000039", "SegmentationClass")
    ]


def test_voc_2012_aug_needs_no_extra_labels_where_none_are_read(tmp_path):
    layouts.voc(tmp_path / "VOC2012")
    list_file = tmp_path / "VOC2012/ImageSets/Segmentation/trainaug.txt"
    list_file.write_text("2007_000039\n2007_000032\n")
    bare = VOC(tmp_path, "train", year="2012_aug", labelled=False)
    assert [item.id for item in bare.items] == ["2007_000039", "2007_000032"]
    given = VOC(
        tmp_path,
        "train",
        year="2012_aug",
        label_source=lambda item: torch.full(layouts.SIZE, 20, dtype=torch.uint8),
    )
    assert given[1]["label"].unique().tolist() == [20]
    with pytest.raises(ValueError, match="SegmentationClassAug does not exist"):
        VOC(tmp_path, "train", year="2012_aug")


def test_voc_refuses_lists_of_another_format(tmp_path):
    folder = layouts.voc(tmp_path / "VOC2012")
    (folder / "ImageSets/Segmentation/train.txt").write_text("2007_000032  1\n2007_000039 -1\n")
    with pytest.raises(ValueError, match=r"train\.txt, line 1: two columns .* where one is expec"):
        VOC(tmp_path, "train")


def test_voc_names_what_is_listed_and_missing(tmp_path):
    folder = layouts.voc(tmp_path / "VOC2012")
    (folder / "SegmentationClass" / "2007_000039.png").unlink()
    with pytest.raises(ValueError, match=r"train\.txt lists 2007_000039, but .* no such label"):
        VOC(tmp_path, "train")
    with pytest.raises(ValueError, match=r"Segmentation/val\.txt does not exist; .* holds train"):
        VOC(tmp_path, "val")


def test_voc_downloads_what_is_missing_and_official(tmp_path, monkeypatch):
    calls = []

    def archive(root, year, split, download):
        calls.append((year, split, download))
        layouts.voc(tmp_path / "VOCdevkit" / f"VOC{year}")

    monkeypatch.setattr(datasets.voc, "VOCSegmentation", archive)
    for _ in range(2):
        assert len(VOC(tmp_path, "train", year="2010", download=True)) == 2
    assert calls == [("2010", "train", True)]
    with pytest.raises(ValueError, match="2012_aug .* have no official archive"):
        VOC(tmp_path, "train", year="2012_aug", download=True)


def test_voc_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    def archive(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(datasets.voc, "VOCSegmentation", archive)
    with pytest.raises(
        ValueError, match=r"VOC 2012 cannot be fetched .*no route.* fetch it by hand"
    ):
        VOC(tmp_path, "train", download=True)


def test_kvasir_splits_by_name_and_thresholds_the_masks(tmp_path):
    stems = [f"cju{index:04d}" for index in range(60)]
    for stem in stems:
        layouts.write_image(tmp_path / "images" / f"{stem}.jpg")
        layouts.write_label(tmp_path / "masks" / f"{stem}.png", layouts.striped([0, 127, 128, 255]))
    parts = {
        split: [i.id for i in Kvasir(tmp_path, split).items] for split in ("train", "val", "test")
    }
    assert sorted(chain(*parts.values())) == stems
    bucket = {s: int(hashlib.sha256(s.encode()).hexdigest(), 16) % 10 for s in stems}
    assert parts["val"] == [s for s in stems if bucket[s] == 8]
    assert parts["test"] == [s for s in stems if bucket[s] == 9]
    assert row(Kvasir(tmp_path, "train")[0])[:4] == [0, 0, 1, 1]
    for stem in parts["val"][:1]:  # another file more or less moves no image
        for path in tmp_path.rglob(f"{stem}.*"):
            path.unlink()
    assert [item.id for item in Kvasir(tmp_path, "train").items] == parts["train"]


def test_kvasir_pairs_by_name(tmp_path):
    for stem in "ab":
        layouts.write_image(tmp_path / "images" / f"{stem}.jpg")
    layouts.write_label(tmp_path / "masks" / "a.jpg", layouts.filled(0))
    with pytest.raises(ValueError, match=r"image without label: .*images/b\.jpg"):
        Kvasir(tmp_path, "train")


def test_camvid_has_the_named_splits(tmp_path):
    root = layouts.camvid(tmp_path)
    scenes = {
        split: Counter(item.scene for item in CamVid(root, split).items) for split in CamVid.splits
    }
    assert scenes["train"] == {"0001TP": 2, "0006R0": 2, "0016E5": 2}
    assert scenes["trainval"] == scenes["train"] + scenes["val"]
    assert scenes["train_day"] == {"0006R0": 2, "0016E5": 2}
    assert scenes["dusk_train"] == {"0001TP": 2}
    assert scenes["dusk_test"] == {"0001TP": 2}
    assert scenes["heldout_test"] == {"Seq05VD": 2}


def test_camvids_twelfth_id_is_void(tmp_path):
    sample = CamVid(layouts.camvid(tmp_path), "train")[0]
    assert 255 in row(sample) or row(sample) == list(range(8))
    layouts.write_label(tmp_path / "trainannot/0001TP_train00000.png", layouts.striped([10, 11]))
    assert row(CamVid(tmp_path, "train")[0])[:2] == [10, 255]


def test_the_real_camvid_has_the_published_counts(camvid_root):
    counts = {split: len(CamVid(camvid_root, split)) for split in CamVid.splits}
    assert counts == {
        "train": 367,
        "val": 101,
        "test": 233,
        "trainval": 468,
        "train_day": 305,
        "dusk_train": 62,
        "dusk_test": 62,
        "heldout_test": 171,
    }
    sample = CamVid(camvid_root, "test")[0]
    assert sample["image"].shape == (3, 360, 480)
    assert set(sample["label"].unique().tolist()) <= {*range(11), 255}
