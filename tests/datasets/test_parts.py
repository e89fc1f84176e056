from pathlib import Path

import pytest
import torch

from datasets import DATASETS
from datasets.augmentation import Augmentation
from datasets.corruptions import build_corruption
from datasets.joined import Joined
from datasets.parts import Part, build_parts, parse_part
from datasets.streets import Streets
from datasets.transforms import eval_transform
from tests.datasets import layouts

SMALL = eval_transform((32, 64))
STREETS = Part("streets")


def build(*texts, defaults=STREETS, **options):
    parts = [parse_part(text) for text in texts]
    return build_parts(parts, defaults=defaults, transform=SMALL, **options)


def test_a_part_says_what_it_was_told():
    assert parse_part("streets") == Part("streets")
    assert parse_part("acdc,split=relis_cal,condition=fog,scene=a+b,root=/data/x=1") == Part(
        "acdc", split="relis_cal", condition="fog", scene=("a", "b"), root=Path("/data/x=1")
    )
    assert parse_part("cityscapes, corruption=fog:3") == Part("cityscapes", corruption=("fog", 3))
    assert parse_part("voc,year=2012_aug,augmented=15") == Part(
        "voc", year="2012_aug", augmented=15
    )


@pytest.mark.parametrize(
    "text",
    ["idd", "idd,split=val,scene=1+2,root=/x", "voc,year=2007,corruption=fog:3", "idd,augmented=2"],
)
def test_a_part_is_written_as_it_is_typed(text):
    assert str(parse_part(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "citiscapes",
            r"no data set is called 'citiscapes' \(did you mean 'cityscapes'\?\); there",
        ),
        ("", "no data set is called ''; there are streets, cityscapes, acdc, idd"),
        ("acdc,conditon=fog", r"no key is called 'conditon' \(did you mean 'condition'\?\); there"),
        ("acdc,dataset=idd", "no key is called 'dataset'; there are split, condition, scene"),
        ("acdc,", "no key is called ''"),
        ("acdc,split", "split has no value; write split=VALUE"),
        ("acdc,split=", "split has no value"),
        ("acdc,split=val,split=train", "split is given twice; leave one of them out"),
        ("acdc,corruption=fog", "severity.*fog"),
        ("acdc,corruption=fgo:3", "corruption.*fgo.*glass_blur"),
        ("acdc,corruption=fog:6", "severity.*6.*1 to 5"),
        ("acdc,augmented=0", "augmented=0 is no number of versions"),
        ("acdc,augmented=-1", "augmented=-1 is no number of versions"),
        ("acdc,augmented=two", "augmented=two is no number of versions"),
        ("acdc,scene=a++b", r"scene=a\+\+b has an empty or repeated name"),
        ("acdc,scene=a+b+a", "has an empty or repeated name; write scene=a"),
        ("acdc,augmented=2,corruption=fog:1", "give corruption or augmented, not both"),
    ],
)
def test_a_mistake_is_named(text, problem):
    with pytest.raises(ValueError, match=f"^part '{text.replace('+', '[+]')}': .*{problem}"):
        parse_part(text)


def test_one_part_is_a_data_set_of_its_own():
    dataset = build("streets,split=relis_test")
    assert type(dataset) is Streets
    assert dataset.split == "relis_test"
    assert dataset.transform == SMALL
    assert type(build("streets,split=train")) is Streets


def test_several_parts_are_joined(tmp_path):
    root = layouts.idd(tmp_path, ("1", "2", "3"), "val")
    dataset = build("streets,split=relis_cal", f"idd,root={root},scene=1+3")
    assert isinstance(dataset, Joined)
    assert dataset.name == "streets+idd"
    assert dataset.split == "relis_cal+val"
    assert len(dataset) == 34 + 4
    assert {item.scene for item in dataset.items[34:]} == {"1", "3"}
    assert dataset[36]["dataset"] == "idd"


def test_what_a_part_does_not_say_comes_from_the_main_data_set_of_that_name(tmp_path):
    layouts.acdc(tmp_path / "a")
    layouts.idd(tmp_path / "i", ("1",), "val")
    main = Part("acdc", split="train", condition="fog", root=tmp_path / "a")
    dataset = build("acdc", f"idd,root={tmp_path / 'i'}", defaults=main)
    acdc, idd = dataset.parts
    assert (acdc.split, {item.condition for item in acdc.items}) == ("train", {"fog"})
    assert idd.split == "val"
    snowy = build("acdc,condition=snow,split=relis_cal", defaults=main)
    assert (snowy.split, {item.condition for item in snowy.items}) == ("relis_cal", {"snow"})
    rainy = build("acdc,scene=GOPRfogtrain", defaults=main)
    assert {item.scene for item in rainy.items} == {"GOPRfogtrain"}


def test_one_look_stands_in_for_another():
    main = Part("streets", corruption=("fog", 2))
    assert {item.condition for item in build("streets", defaults=main).items} == {"clear+fog:2"}
    other = build("streets,augmented=1", defaults=main)
    assert {item.condition for item in other.items} == {"clear+augmented"}


def test_a_data_set_without_its_folder_asks_for_it():
    with pytest.raises(
        ValueError, match="part 'idd,split=val': where is idd.* idd,split=val,root=FOLDER$"
    ):
        build("idd,split=val")
    assert {name for name, kind in DATASETS.items() if not kind.needs_root} == {
        *("streets", "streets_objects", "streets_obstacles")
    }


def test_the_same_part_twice_is_refused():
    with pytest.raises(ValueError, match="the part streets,split=val is given twice"):
        build("streets,split=val", "streets,condition=fog", "streets,split=val")
    with pytest.raises(ValueError, match="the part streets,split=test is given twice"):
        build("streets", "streets,split=test", defaults=Part("streets", split="test"))
    with pytest.raises(ValueError, match="would count twice"):
        build("streets,split=val", "streets,split=relis_cal")


def test_what_does_not_apply_is_refused(tmp_path):
    root = layouts.idd(tmp_path, ("1",), "val")
    with pytest.raises(ValueError, match="condition fog does not apply to idd; it belongs to"):
        build(f"idd,root={root},condition=fog")
    with pytest.raises(ValueError, match=r"no split 'vall' \(did you mean 'val'\?\)"):
        build("streets,split=vall")
    with pytest.raises(ValueError, match="no scene 'nordwik'"):
        build("streets,scene=nordwik")


def test_a_corruption_is_an_appearance():
    plain, foggy = build("streets"), build("streets,corruption=fog:3", seed=7)
    fog = build_corruption("fog", 3, 7)
    assert foggy.appearance == fog
    item = plain.items[2]
    assert torch.equal(foggy[2]["image"], fog(plain[2]["image"], item.id))
    assert torch.equal(foggy[2]["label"], plain[2]["label"])
    assert (item.id, foggy[2]["id"], foggy[2]["condition"]) == (item.id, item.id, "clear+fog:3")
    assert foggy.origins() == plain.origins()
    both = build("streets", "streets,corruption=fog:3", "streets,corruption=snow:1")
    assert both.items[102].id == f"streets_clear+fog-3/{item.id}"
    assert len({item.id for item in both.items}) == 300


def test_augmented_versions_of_every_image():
    plain, augmented = build("streets,scene=nordwick"), build("streets,scene=nordwick,augmented=2")
    assert len(augmented) == 2 * len(plain)
    for version in range(2):
        for index in (0, 20):
            sample = augmented[version * len(plain) + index]
            original = plain[index]
            assert sample["id"] == f"{original['id']}_aug{version}"
            assert sample["condition"] == "clear+augmented"
            look = Augmentation(version, 0)
            assert torch.equal(sample["image"], look(original["image"], original["id"]))
            assert torch.equal(sample["label"], original["label"])
    assert augmented.origins() == plain.origins()
    assert augmented.fingerprint() != plain.fingerprint()
    single = build("streets,augmented=1")
    assert single[0]["id"] == single.items[0].id == f"{Streets(None, 'val').items[0].id}_aug0"


def test_looks_share_one_cache(tmp_path):
    dataset = build("streets,scene=nordwick", "streets,scene=nordwick,augmented=2", cache=tmp_path)
    dataset.prepare()
    assert len(list(tmp_path.glob("*.bin"))) == 1


def test_unknown_objects_by_data_set(tmp_path):
    root = layouts.idd(tmp_path, ("1",), "val", ids=(0, 8, 13, 9))
    dataset = build("streets,scene=nordwick", f"idd,root={root}", ood_ids={"idd": [8]})
    assert set(dataset[len(dataset) - 1]["ood"].unique().tolist()) == {0, 1, 255}
    assert set(dataset[0]["ood"].unique().tolist()) == {0, 255}
    with pytest.raises(ValueError, match="8 is class sidewalk, a known class"):
        build("streets", ood_ids={"streets": [8]})
    with pytest.raises(ValueError, match="out-of-distribution ids for idd, but no part is of this"):
        build("streets", ood_ids={"idd": [8]})
