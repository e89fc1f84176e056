"""Tiny data sets on disk, in the layouts of the real ones."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (6, 8)  # rows, columns
CAMVID_SEQUENCES = {
    "train": ("0001TP", "0006R0", "0016E5"),
    "val": ("0016E5",),
    "test": ("0001TP", "Seq05VD"),
}


def write_image(path: Path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_label(path: Path, ids, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(np.asarray(ids, np.uint8).ravel().tolist())
        image.putpalette([(7 * i + 3) % 256 for i in range(768)])
    image.save(path)


def filled(value, size=SIZE):
    return np.full(size, value, np.uint8)


def striped(values, size=SIZE):
    """Columns that take the values in turn."""
    return np.resize(np.asarray(values, np.uint8), size[1])[None].repeat(size[0], 0)


def truncate(path: Path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def camvid(root: Path, train=6, val=2, test=4):
    for split, count in (("train", train), ("val", val), ("test", test)):
        for index in range(count):
            sequences = CAMVID_SEQUENCES[split]
            name = f"{sequences[index % len(sequences)]}_{split}{index:05d}.png"
            write_image(root / split / name, seed=index)
            write_label(root / f"{split}annot" / name, striped(np.roll(range(12), index)))
    return root


def cityscapes(root: Path, cities=("aachen", "bonn"), split="train"):
    for city in cities:
        for index in range(2):
            stem = f"{city}_000000_{index:06d}"
            write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
            folder = root / "gtFine" / split / city
            write_label(folder / f"{stem}_gtFine_labelIds.png", striped([7, 0, 33, 1]))
            write_image(folder / f"{stem}_gtFine_color.png")
    return root


def acdc(root: Path, kind="labelTrainIds", ids=(0, 18, 255), archives=False):
    images = root / ("rgb_anon_trainvaltest/rgb_anon" if archives else "rgb_anon")
    labels = root / ("gt_trainval/gt" if archives else "gt")
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "val"):
            for index in range(2):
                sequence = f"GOPR{condition}{split}"
                stem = f"{sequence}_frame_{index:06d}"
                write_image(images / condition / split / sequence / f"{stem}_rgb_anon.png")
                folder = labels / condition / split / sequence
                write_label(folder / f"{stem}_gt_{kind}.png", striped(ids))
    return root


def idd(root: Path, scenes, split="train", ids=(0, 8, 13, 9), suffix=".png"):
    """Two images for each scene; frames have the same names in all of them."""
    for scene in scenes:
        for index in range(2):
            stem = f"frame{index:04d}"
            folder = root / "leftImg8bit" / split / scene
            write_image(folder / f"{stem}_leftImg8bit{suffix}", seed=index)
            folder = root / "gtFine" / split / scene
            write_label(folder / f"{stem}_gtFine_labellevel3Ids.png", striped(ids))
            write_label(folder / f"{stem}_gtFine_labelids.png", striped([99]))
    return root


def voc(folder: Path, names=("2007_000032", "2007_000039"), labels="SegmentationClass"):
    for name in names:
        write_image(folder / "JPEGImages" / f"{name}.jpg")
        write_label(folder / labels / f"{name}.png", striped([0, 15, 20, 255]), palette=True)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def annotation(path: Path, names):
    """An XML file as VOC has it; objects have parts, whose names are none of classes."""
    part = "<part><name>head</name></part>"
    objects = "".join(f"<object><name>{name}</name>{part}</object>" for name in names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>x.jpg</filename>{objects}</annotation>")


def coco14(root: Path, ids=(0, 1, 90, 255), images="images"):
    for split in ("train", "val"):
        names = [f"COCO_{split}2014_{index:012d}" for index in range(3)]
        for index, name in enumerate(names):
            write_image(root / images / f"{name}.jpg", seed=index)
            write_label(root / "voc_format/class_labels" / f"{name}.png", striped(ids))
        listed = "".join(f"{name}\n" for name in names[:2])
        (root / "voc_format" / f"{split}.txt").write_text(listed)
    return root


def folder(root: Path, classes, splits=("train", "val"), ids=(0, 1, 255)):
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.json").write_text(json.dumps(classes))
    for split in splits:
        for name in ("a", "b"):
            write_image(root / "images" / split / f"{split}_{name}.jpg")
            write_label(root / "labels" / split / f"{split}_{name}.png", striped(ids))
    return root


LAF_TEST = ("04_Maurener_Weg_8", "15_Rechbergstr_Deckenpfronn")


def lost_and_found(root: Path, split="test", sequences=LAF_TEST, train_ids=True):
    """Two images for each sequence; label ids of free road, a hazard and no hazard, and void."""
    for sequence in sequences:
        for index in range(2):
            stem = f"{sequence}_{index:06d}_000030"
            image = root / "leftImg8bit" / split / sequence / f"{stem}_leftImg8bit.png"
            write_image(image, seed=index)
            label = root / "gtCoarse" / split / sequence / f"{stem}_gtCoarse"
            write_label(label.with_name(f"{label.name}_labelIds.png"), striped([1, 2, 31, 0]))
            write_image(label.with_name(f"{label.name}_color.png"))
            if train_ids:
                ids = striped([1, 2, 0, 255])
                write_label(label.with_name(f"{label.name}_labelTrainIds.png"), ids)
    return root


def road_anomaly(root: Path, names=("animals31_deer", "cones08_can"), ids=(0, 2), suffix=".jpg"):
    """As the authors publish it."""
    for seed, name in enumerate(names):
        write_image(root / "frames" / f"{name}{suffix}", seed=seed)
        folder = root / "frames" / f"{name}.labels"
        write_label(folder / "labels_semantic.png", striped(ids))
        write_image(folder / "labels_semantic_color.png")
    (root / "frame_list.json").write_text(json.dumps([f"{name}{suffix}" for name in names]))
    return root


def road_anomaly_repackaged(root: Path, names=("animals31_deer", "cones08_can"), ids=(0, 1, 7)):
    for seed, name in enumerate(names):
        write_image(root / "original" / f"{name}.jpg", seed=seed)
        write_label(root / "labels" / f"{name}.png", striped(ids))
    return root


def smiyc(root: Path, labelled=("validation0000", "validation0001"), others=("airplane0000",)):
    for seed, name in enumerate((*labelled, *others)):
        write_image(root / "images" / f"{name}.webp", seed=seed)
        if name in labelled:
            labels = root / "labels_masks"
            write_label(labels / f"{name}_labels_semantic.png", striped([0, 1, 255]))
            write_image(labels / f"{name}_labels_semantic_color.png")
    return root


def mapillary(root: Path, ids=(0, 13, 64, 65)):
    for folder in ("training", "validation"):
        for index in range(2):
            name = f"{folder}{index}"
            write_image(root / folder / "images" / f"{name}.jpg", (6 + index, 8), seed=index)
            label = striped(ids, (6 + index, 8))
            write_label(root / folder / "labels" / f"{name}.png", label, palette=True)
    return root


def kvasir(root: Path, count=12):
    for index in range(count):
        write_image(root / "images" / f"polyp{index}.jpg", seed=index)
        write_label(root / "masks" / f"polyp{index}.png", striped([0, 255]))
    return root


def gta5(root: Path, count=3, ids=(7, 8, 33, 34)):
    for index in range(1, count + 1):
        write_image(root / "images" / f"{index:05d}.png", seed=index)
        write_label(root / "labels" / f"{index:05d}.png", striped(ids), palette=True)
    return root


def write_channels(path: Path, ids, kind):
    """A PNG with ids in its first channel and other values in the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.asarray(ids, kind)
    last = [np.full_like(ids, 255)] if kind == np.uint8 else []
    others = [np.full_like(ids, np.iinfo(kind).max - 5), np.full_like(ids, 9), *last]
    blue_first = [others[1], others[0], ids, *others[2:]]
    assert cv2.imwrite(str(path), np.dstack(blue_first))


def synthia(root: Path, count=3, ids=(3, 11, 0, 22)):
    for index in range(count):
        write_image(root / "RGB" / f"{index:07d}.png", seed=index)
        write_channels(root / "GT" / "LABELS" / f"{index:07d}.png", striped(ids), np.uint16)
    return root


def robotcar(root: Path, ids=(1, 12, 17, 9)):
    for sequence in ("2015-05-29-09-36-29_07", "2015-07-24-14-17-50_01"):
        for index in range(2):
            write_image(root / "train" / sequence / f"{index:06d}.png", seed=index)
    for index in range(2):
        name = f"2014-11-25-09-18-32_01_{index:06d}.png"
        write_image(root / "val" / name, seed=index)
        write_channels(root / "anno" / name, striped(ids), np.uint8)
    return root
