import json
import logging

import pytest
import torch

import datasets.tags
from datasets.base import Item
from datasets.camvid import CamVid
from datasets.kvasir import Kvasir
from datasets.loaders import eval_batches, paired, train_batches
from datasets.streets import Streets, StreetsObjects, write_layout
from datasets.tags import ImageTags
from datasets.taxonomy import VOC as VOC_CLASSES
from datasets.transforms import eval_transform, train_transform
from datasets.voc import VOC
from engine.batch import prepare
from tests.datasets import layouts
from tests.datasets.toys import Toy


def shown(tags, dataset):
    return {item.id: tags(item).nonzero().flatten().tolist() for item in dataset.originals}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def test_masks_tell_which_classes_have_a_pixel_at_native_size(tmp_path):
    layouts.voc(tmp_path / "VOC2012")
    label = layouts.filled(0)
    label[2, 3] = 7  # one pixel, which a resize would lose
    layouts.write_label(tmp_path / "VOC2012/SegmentationClass/2007_000032.png", label)
    small = eval_transform((2, 2))
    tags = ImageTags("masks", VOC(tmp_path, "train", transform=small))
    assert shown(tags, VOC(tmp_path, "train")) == {
        "2007_000032": [0, 7],
        "2007_000039": [0, 15, 20],
    }
    assert tags(VOC(tmp_path, "train").items[0]).dtype == torch.float32
    assert tags(VOC(tmp_path, "train").items[0]).shape == (21,)


def test_the_background_is_always_there_and_absent_where_there_is_none(tmp_path):
    layouts.kvasir(tmp_path / "polyps", 30)
    for path in tmp_path.glob("polyps/masks/*"):
        layouts.write_label(path, layouts.filled(255))
    polyps = Kvasir(tmp_path / "polyps", "train")
    assert set(map(tuple, shown(ImageTags("masks", polyps), polyps).values())) == {(0, 1)}
    layouts.camvid(tmp_path / "camvid")
    roads = CamVid(tmp_path / "camvid", "train")
    layouts.write_label(roads.items[0].label, layouts.striped([3, 11]))
    assert shown(ImageTags("masks", roads), roads)[roads.items[0].id] == [3]


def test_drawn_scenes_have_tags_of_what_is_drawn():
    for kind in (Streets, StreetsObjects):
        dataset = kind(None, "val", num_images=4, image_size=(32, 64))
        tags = ImageTags("masks", dataset)
        for index, item in enumerate(dataset.items):
            present = set(dataset.read(index)[1].unique().tolist()) - {255}
            assert set(tags(item).nonzero().flatten().tolist()) == present | (
                {0} if kind is StreetsObjects else set()
            )


def test_masks_are_read_once(tmp_path, monkeypatch):
    layouts.voc(tmp_path / "VOC2012")
    dataset = VOC(tmp_path, "train")
    first = ImageTags("masks", dataset, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("voc_train_tags_*.npy"))) == 1
    monkeypatch.setattr(datasets.tags, "scan_label", None)
    again = ImageTags("masks", VOC(tmp_path, "train"), tmp_path / "cache")
    assert shown(again, dataset) == shown(first, dataset)
    assert again.fingerprint() == first.fingerprint()
    monkeypatch.undo()
    layouts.write_label(dataset.items[0].label, layouts.striped([9]))
    changed = ImageTags("masks", VOC(tmp_path, "train"), tmp_path / "cache")
    assert shown(changed, dataset)["2007_000032"] == [0, 9]
    assert changed.fingerprint() != first.fingerprint()


def test_a_bad_mask_is_named(tmp_path):
    layouts.voc(tmp_path / "VOC2012")
    dataset = VOC(tmp_path, "train")
    layouts.write_label(dataset.items[1].label, layouts.striped([30]))
    with pytest.raises(ValueError, match=r"2007_000039\.png: label value 30 outside the classes"):
        ImageTags("masks", dataset)


def test_annotations_need_no_label_file(tmp_path):
    folder = layouts.voc(tmp_path / "VOC2012")
    layouts.annotation(folder / "Annotations/2007_000032.xml", ["dog", "tvmonitor"])
    layouts.annotation(folder / "Annotations/2007_000039.xml", [])
    dataset = VOC(tmp_path, "train", labelled=False)
    tags = ImageTags("xml", dataset)
    assert shown(tags, dataset) == {"2007_000032": [0, 12, 20], "2007_000039": [0]}
    (folder / "Annotations/2007_000039.xml").unlink()
    with pytest.raises(ValueError, match=r"2007_000039\.xml does not exist; .* 2007_000032\.xml$"):
        ImageTags("xml", dataset)
    with pytest.raises(ValueError, match="and streets has no files: give masks, or a"):
        ImageTags("xml", Streets(None, "val", num_images=2))


def test_every_listed_image_needs_an_entry(tmp_path):
    layouts.voc(tmp_path / "VOC2012")
    dataset = VOC(tmp_path, "train", labelled=False)
    entries = {"2007_000032": ["dog"], "2007_000039": [], "elsewhere": ["cat"]}
    tags = ImageTags(write_json(tmp_path / "tags.json", entries), dataset)
    assert shown(tags, dataset) == {"2007_000032": [0, 12], "2007_000039": [0]}
    del entries["2007_000039"]
    path = write_json(tmp_path / "tags.json", entries)
    with pytest.raises(ValueError, match=r"tags\.json has no tags for 2007_000039, an image of sp"):
        ImageTags(str(path), dataset)
    with pytest.raises(ValueError, match=r"has no tags for item0 \(and 11 more\), .* train of toy"):
        ImageTags(write_json(tmp_path / "none.json", {}), Toy())
    with pytest.raises(ValueError, match="has no tags for other"):
        tags(Item("other", None, None))


def test_classes_that_no_image_is_tagged_with_are_reported(tmp_path, caplog):
    path = write_json(tmp_path / "t.json", {f"item{i}": ["a"] for i in range(12)})
    with caplog.at_level(logging.WARNING):
        ImageTags(path, Toy())
    assert "no image of train is tagged b, c" in caplog.text
    caplog.clear()
    ImageTags("masks", Toy())
    assert "tagged" not in caplog.text


def test_the_tags_follow_the_scenes_that_are_chosen(tmp_path):
    layouts.camvid(tmp_path)
    some = CamVid(tmp_path, "train", scenes=["0006R0"])
    path = write_json(tmp_path / "t.json", {item.id: ["car"] for item in some.items})
    assert shown(ImageTags(path, some), some) == {item.id: [8] for item in some.items}
    with pytest.raises(ValueError, match="has no tags for 0001TP"):
        ImageTags(path, CamVid(tmp_path, "train"))


def toy_tags(item):
    return torch.eye(3)[int(item.id.removeprefix("item")) % 3]


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"labelled": False},
        {"label_source": lambda item: torch.full((6, 8), 1, dtype=torch.uint8)},
    ],
)
def test_samples_and_batches_carry_the_labels_of_the_image(labels, tmp_path):
    transform = train_transform("scale_crop", (6, 6), flip=0.5)
    toy = Toy(tags=toy_tags, transform=transform, cache=tmp_path, **labels)
    assert torch.equal(toy[4]["image_labels"], torch.tensor([0.0, 1, 0]))
    batches = train_batches(toy, batch_size=4, seed=3, num_workers=0)
    batch = next(batches)
    batches.close()
    assert batch["image_labels"].shape == (4, 3)
    assert batch["image_labels"].dtype == torch.float32
    for name, row in zip(batch["id"], batch["image_labels"], strict=True):
        assert torch.equal(row, toy_tags(Item(name, None, None)))
    moved = prepare(batch, torch.device("cpu"))
    assert torch.equal(moved["image_labels"], batch["image_labels"])
    (pair,) = [next(paired(iter([batch]), iter([batch])))]
    assert torch.equal(pair["target_image_labels"], batch["image_labels"])


def test_without_tags_there_are_none():
    (first, *_) = eval_batches(Toy(), batch_size=2, num_workers=0)
    assert "image_labels" not in first


def test_tags_alone_change_no_fingerprint_and_no_cache():
    plain, tagged = Toy(), Toy(tags=toy_tags)
    assert plain.fingerprint() == tagged.fingerprint()
    assert plain.content_key() == tagged.content_key()


def test_from_tags_alone_on_files_of_streets(tmp_path):
    """The list trainaug, annotations and no label folder at all."""
    write_layout("voc_objects", tmp_path, images_per_split=6, size=(48, 96))
    folder = tmp_path / "VOCdevkit/VOC2012"
    from_masks = VOC(tmp_path, "train")
    masks = shown(ImageTags("masks", from_masks), from_masks)
    (folder / "SegmentationClass").rename(tmp_path / "elsewhere")
    bare = VOC(tmp_path, "train", year="2012_aug", labelled=False)
    tags = ImageTags("xml", bare)
    named = shown(tags, bare)
    assert named.keys() == masks.keys()
    for image_id, present in named.items():
        assert set(present) >= set(masks[image_id])  # borders are void: the smallest may be lost
    assert len(set(map(tuple, named.values()))) > 2
    sample = VOC(tmp_path, "train", year="2012_aug", labelled=False, tags=tags)[0]
    assert (sample["label"] == 255).all()
    assert sample["image_labels"].shape == (len(VOC_CLASSES),)
    assert sample["image_labels"][0] == 1
