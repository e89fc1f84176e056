import pytest

from datasets import DATASETS, build_dataset, own_options
from datasets.base import SegDataset
from datasets.transforms import eval_transform
from tests.datasets import layouts

ALWAYS = {"year": "2012", "condition": None, "download": False}  # as the flags give them


def test_the_data_sets_by_name():
    assert set(DATASETS) == {
        *("streets", "cityscapes", "acdc", "idd", "voc", "kvasir", "camvid", "folder"),
        *("mapillary", "streets_obstacles", "lost_and_found", "road_anomaly"),
        *("smiyc_anomaly", "smiyc_obstacle"),
        *("gta5", "synthia", "robotcar", "cityscapes_robotcar"),
        *("coco14", "streets_objects"),
    }
    for name, kind in DATASETS.items():
        assert issubclass(kind, SegDataset)
        assert kind.name == name
        assert kind.__doc__
        assert kind.layout
    with_background = {name for name, kind in DATASETS.items() if kind.background is not None}
    assert with_background == {"voc", "coco14", "kvasir", "streets_objects"}
    for name in with_background:
        assert DATASETS[name].classes[DATASETS[name].background].name == "background"


def test_options_go_to_the_data_set_that_takes_them(tmp_path):
    assert own_options(DATASETS["camvid"]) == own_options(DATASETS["idd"]) == {}
    assert own_options(DATASETS["voc"]) == {"year": "2012", "download": False}
    root = layouts.acdc(tmp_path)
    dataset = build_dataset("acdc", root, "val", **{**ALWAYS, "condition": "fog"})
    assert {item.condition for item in dataset.items} == {"fog"}


def test_the_shared_arguments_arrive(tmp_path):
    dataset = build_dataset(
        "camvid",
        layouts.camvid(tmp_path / "data"),
        "train",
        transform=eval_transform((3, 4)),
        seed=7,
        cache=tmp_path / "cache",
        **ALWAYS,
    )
    assert dataset.seed == 7
    assert dataset[0]["label"].shape == (3, 4)
    assert list((tmp_path / "cache").glob("camvid_train_3x4_*.bin"))


def test_what_every_data_set_takes_is_no_option_of_some(tmp_path):
    root = layouts.camvid(tmp_path)
    dataset = build_dataset("camvid", root, "train", scenes=["0006R0"], ood_ids=(11,), **ALWAYS)
    assert {item.scene for item in dataset.items} == {"0006R0"}
    assert "ood" in dataset[0]


def test_an_option_of_another_data_set_is_refused(tmp_path):
    root = layouts.camvid(tmp_path)
    for option, owner in (({"condition": "night"}, "streets and acdc"), ({"year": "2007"}, "voc")):
        with pytest.raises(ValueError, match=f"does not apply to camvid; it belongs to {owner}"):
            build_dataset("camvid", root, "train", **{**ALWAYS, **option})


def test_generated_data_needs_no_root():
    assert len(build_dataset("streets", None, "val", **ALWAYS)) > 0
