"""LostAndFound on tiny files in its layout, and the benchmark's choice of its test images."""

from collections import Counter

import pytest

from datasets.lost_and_found import LostAndFound
from tests.datasets import layouts

FIRST = "gtCoarse/test/04_Maurener_Weg_8/04_Maurener_Weg_8_000000_000030_gtCoarse"
# (sequence, number of images): 1203 in all, the children's ones last in the order of names
ALL = (
    *(("02_Hanns_Klemm_Str_44", 300), ("04_Maurener_Weg_8", 400)),
    *(("07_Festplatz_Flugfeld", 360), ("15_Rechbergstr_Deckenpfronn", 143)),
)


@pytest.fixture
def root(tmp_path):
    return layouts.lost_and_found(tmp_path)


@pytest.fixture(scope="module")
def complete(new_folder):
    """As many test images as there really are, all of them one file, written in reverse."""
    root = new_folder("laf")
    image, label = root / "image.png", root / "label.png"
    layouts.write_image(image, (1, 4))
    layouts.write_label(label, layouts.striped([0, 1, 31, 43], (1, 4)))
    for sequence, count in reversed(ALL):
        folders = [root / name / "test" / sequence for name in ("leftImg8bit", "gtCoarse")]
        for folder in folders:
            folder.mkdir(parents=True)
        for index in reversed(range(count)):
            stem = f"{sequence}_{index:06d}_000030"
            (folders[0] / f"{stem}_leftImg8bit.png").hardlink_to(image)
            (folders[1] / f"{stem}_gtCoarse_labelIds.png").hardlink_to(label)
            (folders[1] / f"{stem}_gtCoarse_labelTrainIds.png").hardlink_to(label)
    return root


def row(dataset, index=0):
    return dataset[index]["ood"][0, :4].tolist()


def test_pairs_by_sequence(root):
    dataset = LostAndFound(root, "test")
    assert Counter(item.scene for item in dataset.items) == dict.fromkeys(layouts.LAF_TEST, 2)
    assert dataset.items[0].id == "04_Maurener_Weg_8_000000_000030"
    assert dataset.items[0].label.name.endswith("_gtCoarse_labelTrainIds.png")
    assert len(LostAndFound(root, "test", scenes=[layouts.LAF_TEST[1]])) == 2


def test_free_road_is_known_and_hazards_are_not(root, tmp_path):
    assert row(LostAndFound(root, "test")) == [0, 1, 255, 255]
    bare = layouts.lost_and_found(tmp_path / "bare", train_ids=False)
    dataset = LostAndFound(bare, "test")
    assert dataset.items[0].label.name.endswith("_gtCoarse_labelIds.png")
    assert row(dataset) == [0, 1, 255, 255]


def test_the_label_ids_of_the_published_splits(root):
    values = LostAndFound(layouts.lost_and_found(root, train_ids=False), "test", ood_ids=[2])
    by_value = {value: values.label_map.raw_ids(value) for value in (0, 1, 255)}
    assert by_value[0] == [1]
    assert by_value[1] == [*range(2, 31), 32, 35, *range(40, 44)]
    assert by_value[255] == [0, 31, 33, 34, 36, 37, 38, 39, 255]


def test_things_that_are_no_hazards_may_be_named(root):
    dataset = LostAndFound(root, "test", ood_ids=(31,))
    assert dataset.items[0].label.name.endswith("_gtCoarse_labelIds.png")
    assert row(dataset) == [0, 1, 1, 255]
    with pytest.raises(ValueError, match="^1 cannot be out of distribution in lost_and_found"):
        LostAndFound(root, "test", ood_ids=(1,))


def test_train_has_the_same_layout(root):
    layouts.lost_and_found(root, "train", ("01_Hanns_Klemm_Str_45",))
    dataset = LostAndFound(root, "train")
    assert {item.scene for item in dataset.items} == {"01_Hanns_Klemm_Str_45"}
    assert dataset.fingerprint() != LostAndFound(root, "test").fingerprint()


def test_a_missing_label_or_image_is_named(root):
    (root / f"{FIRST}_labelTrainIds.png").unlink()
    with pytest.raises(ValueError, match=r"image without label: .*Weg_8_000000_000030_leftImg8bit"):
        LostAndFound(root, "test")
    (root / FIRST.replace("gtCoarse", "leftImg8bit")).with_suffix(".png").unlink()
    LostAndFound(root, "test")
    with pytest.raises(ValueError, match=r"label without image: .*000000_000030_gtCoarse_labelIds"):
        LostAndFound(root, "test", ood_ids=(31,))


def test_other_values_are_refused(root):
    layouts.write_label(root / f"{FIRST}_labelTrainIds.png", layouts.filled(3))
    with pytest.raises(ValueError, match=r"labelTrainIds\.png: label value 3 outside .*2 = unknow"):
        LostAndFound(root, "test")[0]


def test_the_benchmark_keeps_1186_of_the_test_images(complete):
    whole = [item.id for item in LostAndFound(complete, "test", ood_ids=[2]).items]
    dataset = LostAndFound(complete, "smiyc")
    kept = [item.id for item in dataset.items]
    assert len(whole) == 1203
    assert len(kept) == 1186
    dropped = [place for place, name in enumerate(sorted(whole)) if name not in set(kept)]
    assert dropped[:4] == [17, 37, 55, 72]
    assert dropped[-3:] == [686, 792, 793]
    assert row(dataset) == [255, 0, 1, 1]  # of 0, free, marker pole, crawling child
    assert dataset.items[0].label.name.endswith("_gtCoarse_labelIds.png")


def test_the_benchmark_without_known_classes_keeps_1043(complete):
    kept = LostAndFound(complete, "smiyc_no_known").items
    assert len(kept) == 1043
    assert {item.scene for item in kept} == {sequence for sequence, _ in ALL[:-1]}


def test_the_benchmark_needs_all_test_images(root):
    for split in ("smiyc", "smiyc_no_known"):
        with pytest.raises(ValueError, match=f"'{split}' .* all 1203 test images, but .* has 4: "):
            LostAndFound(root, split)
