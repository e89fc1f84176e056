import pickle
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
import torch
from scipy import ndimage

import datasets.class_uniform
from datasets.camvid import CamVid
from datasets.class_uniform import Centroid, ClassUniform, find_centroids, tile_centroids
from datasets.epochs import StepSampler, epoch_of
from datasets.items import SampleKey
from datasets.joined import Joined
from datasets.loaders import train_batches
from datasets.transforms import train_transform
from tests.datasets import layouts
from tests.datasets.toys import Toy

SIZES = ((6, 8), (12, 9), (3, 20), (5, 5)) * 3


def by_brute_force(label, tile, num_classes):
    """One class of one tile after the other, by an independent centre of mass."""
    height, width = (min(tile, n) for n in label.shape)
    for top in range(0, label.shape[0] - height + 1, height):
        for left in range(0, label.shape[1] - width + 1, width):
            part = label[top : top + height, left : left + width]
            for train_id in range(num_classes):
                if (part == train_id).any():
                    y, x = ndimage.center_of_mass(part == train_id)
                    yield train_id, left + int(x + 1e-9), top + int(y + 1e-9)


@pytest.mark.parametrize("size", [(12, 18), (5, 30), (7, 4), (13, 11), (1, 1), (24, 24)])
@pytest.mark.parametrize("tile", [1, 4, 6, 100])
def test_tiles_and_centres_are_those_of_brute_force(size, tile):
    values = np.array([0, 1, 2, 3, 255], np.uint8)
    label = np.random.default_rng(tile).choice(values, size, p=[0.5, 0.2, 0.05, 0.05, 0.2])
    found = list(tile_centroids(torch.from_numpy(label), tile, 3))
    assert sorted(found) == sorted(by_brute_force(label, tile, 3))
    assert len(found) == len(set(found))


def test_an_image_smaller_than_the_tile_is_one_tile_and_rests_are_left_out():
    label = torch.zeros(4, 10, dtype=torch.uint8)
    label[:, 6:] = 1
    assert list(tile_centroids(label, 16, 2)) == [(0, 2, 1), (1, 7, 1)]
    assert list(tile_centroids(label, 3, 2)) == [(0, 1, 1), (0, 4, 1), (1, 7, 1)]
    assert list(tile_centroids(torch.full((4, 4), 255, dtype=torch.uint8), 2, 2)) == []


def test_centroids_are_found_by_class_in_the_order_of_the_images(tmp_path):
    toy = Toy(sizes=SIZES)
    found = find_centroids(toy, 4, tmp_path)
    expected = [[] for _ in range(3)]
    for index in range(len(toy)):
        for train_id, x, y in by_brute_force(toy.read(index)[1].numpy(), 4, 3):
            expected[train_id].append(Centroid(index, x, y))
    assert [rows.dtype for rows in found] == [np.int32] * 3
    assert [sorted(map(tuple, rows.tolist())) for rows in found] == list(map(sorted, expected))
    assert all((np.diff(rows[:, 0]) >= 0).all() for rows in found)


def test_labels_in_files_are_read_as_sampled_and_without_their_images(tmp_path):
    root = layouts.camvid(tmp_path / "camvid")
    dataset = CamVid(root, "train")
    dataset.read = None
    found = find_centroids(dataset, 4, tmp_path / "kept")
    assert len(found) == 11
    for train_id, rows in enumerate(found):
        for index, x, y in rows.tolist():
            label = CamVid(root, "train")[index]["label"]
            assert (label[:, x] == train_id).all()
            assert y in (1, 2)


def test_centroids_are_measured_once_and_anew_when_labels_or_tiles_change(tmp_path):
    root, kept = layouts.camvid(tmp_path / "camvid"), tmp_path / "kept"
    dataset = CamVid(root, "train")
    first = find_centroids(dataset, 4, kept)
    dataset.read_raw_label = None  # a second measurement would fail
    assert all(map(np.array_equal, find_centroids(dataset, 4, kept), first))

    (file,) = kept.glob("*.npz")
    assert file.name == f"camvid_train_centroids_4_{dataset.content_key()}.npz"
    assert len(find_centroids(CamVid(root, "train"), 3, kept)[0]) != len(first[0])
    layouts.write_label(root / "trainannot/0001TP_train00000.png", layouts.filled(3))
    changed = find_centroids(CamVid(root, "train"), 4, kept)
    assert not all(map(np.array_equal, changed, first))
    assert len(list(kept.glob("*.npz"))) == 3
    assert not list(kept.glob(".*.tmp"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign", "other images"])
def test_a_damaged_file_is_measured_again(tmp_path, caplog, monkeypatch, damage):
    monkeypatch.setattr("datasets.class_uniform.logger.propagate", True)
    toy = Toy(sizes=SIZES)
    first = find_centroids(toy, 4, tmp_path)
    (file,) = tmp_path.glob("*.npz")
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "flipped":
        middle = len(content) // 3
        flipped = bytes([content[middle] ^ 1])
        file.write_bytes(content[:middle] + flipped + content[middle + 1 :])
    elif damage == "foreign":
        np.savez(file, rows=np.zeros((2, 3), np.int32), counts=[1, 1])
    else:
        np.savez(file, rows=np.full((3, 3), 12, np.int32), counts=[1, 1, 1])
    assert all(map(np.array_equal, find_centroids(toy, 4, tmp_path), first))
    assert "its centroids are measured again" in caplog.text
    assert file.read_bytes() == content


def test_tiles_have_pixels_and_bad_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has 1 pixel or more, not 0"):
        find_centroids(Toy(), 0, tmp_path)
    with pytest.raises(ValueError, match="item 7 is bad"):
        find_centroids(Toy(bad={7}), 4, tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def rows(*centroids):
    return np.array(centroids, np.int32).reshape(-1, 3)


def counted(keys):
    return Counter(key.centre for key in keys)


CENTROIDS = [
    rows(*((index, 100 + index, 0) for index in range(50))),
    rows((3, 200, 1), (4, 201, 2), (4, 202, 3)),  # fewer than are drawn
    rows(),
    rows(*((index % 7, 400 + index, 4) for index in range(10))),
]


def test_an_epoch_draws_its_share_by_class_and_the_rest_at_random():
    """Of 50 images, a share of 0.85: int(50 * 0.85 / 4) = 10 of each class and 10 at random."""
    sampling = ClassUniform(50, CENTROIDS, 0.85, 7)
    for epoch in range(5):
        keys = sampling.keys(epoch)
        assert len(keys) == sampling.length(epoch) == sampling.shortest == 50 - 10
        assert [key.place for key in keys] == list(range(40))
        assert {key.epoch for key in keys} == {epoch}
        centres = counted(keys)
        assert centres.pop(None) == 10
        by_class = Counter(x // 100 for x, _ in centres.elements())
        assert by_class == {1: 10, 2: 10, 4: 10}
        assert max(n for (x, _), n in centres.items() if x < 200) == 1
        wrapped = sorted(n for (x, _), n in centres.items() if 200 <= x < 300)
        assert wrapped == [3, 3, 4]
        assert all(centres[400 + index, 4] == 1 for index in range(10))
        drawn = [key.index for key in keys if key.centre is None]
        assert len(set(drawn)) == 10
        assert max(drawn) < 50
        for key in keys:
            if key.centre is not None and key.centre[0] < 200:
                assert key.index == key.centre[0] - 100


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("num_images", [1, 7, 50, 99])
def test_the_length_of_an_epoch(num_images, share):
    sampling = ClassUniform(num_images, CENTROIDS, share, 0)
    expected = num_images - int(num_images * share / 4)
    assert sampling.length(0) == len(sampling.keys(0)) == expected


def test_epochs_differ_in_choice_and_order_and_follow_from_the_seed():
    first, again, other = (ClassUniform(50, CENTROIDS, 0.8, seed) for seed in (1, 1, 2))
    assert first.keys(3) == again.keys(3)
    assert first.keys(3) != other.keys(3)
    assert counted(first.keys(3)) != counted(first.keys(4))
    kinds = [key.centre is None for key in first.keys(0)]
    assert kinds != sorted(kinds)
    assert kinds != sorted(kinds, reverse=True)
    assert pickle.loads(pickle.dumps(first)).keys(3) == first.keys(3)


def test_further_images_boost_some_classes_until_an_epoch():
    boost = [rows(*((n, 1000 * (c + 1) + n, 0) for n in range(30))) for c in range(4)]
    sampling = ClassUniform(50, CENTROIDS, 0.8, 0, boost=boost, boost_classes=(2, 3), max_epoch=4)
    early, late = ([key for e in span for key in sampling.keys(e)] for span in (range(4), (4, 9)))
    boosted = Counter(key.centre[0] // 1000 for key in early if key.centre)
    assert boosted[3] == 4 * 10  # the class has no centroids of its own
    assert 15 < boosted[4] < 40  # 30 of 40 centroids
    assert boosted[1] == boosted[2] == 0
    for key in early:
        if key.index >= 50:
            assert key.index == 50 + key.centre[0] % 1000
    assert max(key.index for key in late) < 50
    plain = ClassUniform(50, CENTROIDS, 0.8, 0)
    assert late == plain.keys(4) + plain.keys(9)
    assert [sampling.length(epoch) for epoch in (0, 3, 4, 9)] == [50, 50, 40, 40]
    assert sampling.shortest == 40
    assert ClassUniform(50, CENTROIDS, 0.8, 0, boost=boost, boost_classes=(2,)).shortest == 50


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"share of an epoch lies in \[0, 1\], not 1.5"):
        ClassUniform(50, CENTROIDS, 1.5, 0)
    with pytest.raises(ValueError, match="class 4 cannot be boosted: the train ids are 0 to 3"):
        ClassUniform(50, CENTROIDS, 0.5, 0, boost=CENTROIDS, boost_classes=(1, 4))


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (2, 2), (4, 1)])
def test_processes_share_each_step_of_one_list(world_size, accumulation):
    """Each process builds the sampling itself, as they do."""
    share = 8 // world_size // accumulation
    samplers = [
        iter(
            StepSampler(
                ClassUniform(50, CENTROIDS, 0.8, 7), share, accumulation, 0, rank, world_size
            )
        )
        for rank in range(world_size)
    ]
    listed = ClassUniform(50, CENTROIDS, 0.8, 7)
    for step in range(12):
        epoch, place = divmod(step, 40 // 8)
        parts = [key for s in samplers for _ in range(accumulation) for key in next(s)]
        assert len(set(parts)) == 8
        assert set(parts) == set(listed.keys(epoch)[8 * place :][:8])


def data_and_order(tmp_path):
    transform = train_transform("scale_crop", (5, 6), flip=0.5, colour_jitter=0.5)
    fine = Toy(sizes=SIZES, transform=transform, seed=4)
    further = Toy("val", sizes=SIZES[:5], transform=transform, seed=4)
    centroids, boost = (find_centroids(part, 4, tmp_path) for part in (fine, further))
    centroids[1] = centroids[1][:0]
    order = ClassUniform(
        len(fine), centroids, 0.75, 3, boost=boost, boost_classes=(1,), max_epoch=2
    )
    return fine, further, order


def test_a_resumed_run_sees_the_rest_of_the_uninterrupted_one(tmp_path):
    """Epochs of twelve images, from the third on of nine: four, then three steps of three."""
    _, _, order = data_and_order(tmp_path)
    whole = list(islice(StepSampler(order, 3), 20))
    assert [batch[0].epoch for batch in whole] == [0] * 4 + [1] * 4 + [
        2 + n // 3 for n in range(12)
    ]
    for start in range(20):
        assert list(islice(StepSampler(order, 3, 1, start), 20 - start)) == whole[start:]
        assert epoch_of(start, order, 3)[0] == whole[start][0].epoch


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_batches_are_those_of_the_uninterrupted_run(tmp_path, num_workers):
    fine, _, _ = data_and_order(tmp_path)
    order = ClassUniform(len(fine), find_centroids(fine, 4, tmp_path), 0.75, 3)
    common = {"batch_size": 3, "seed": 0, "num_workers": num_workers, "order": order}
    whole, rest = (train_batches(fine, start_step=start, **common) for start in (0, 5))
    for first, second in zip(islice(whole, 5, 11), islice(rest, 6), strict=True):
        assert first["id"] == second["id"]
        assert torch.equal(first["image"], second["image"])
    whole.close()
    rest.close()


def test_the_images_of_the_boost_are_those_that_follow(tmp_path):
    fine, further, order = data_and_order(tmp_path)
    further.name = "further"
    joined = Joined([fine, further])
    seen = [joined[key] for key in order.keys(0)]
    of_boost = [key for key in order.keys(0) if key.index >= len(fine)]
    assert sum(sample["dataset"] == "further" for sample in seen) == len(of_boost) == 3
    for key in of_boost:
        own = further[SampleKey(key.epoch, key.index - len(fine), key.centre, key.place)]
        assert torch.equal(joined[key]["image"], own["image"])


def test_crops_show_a_pixel_of_the_tile_of_their_centroid(tmp_path):
    """At scale 1 the pixel at the centroid itself, checked on labels that number the pixels."""
    fine, _, order = data_and_order(tmp_path)
    fine.transform = train_transform("scale_crop", (5, 6), scale_range=(1.0, 1.0))
    number = {}
    for index, (height, width) in enumerate(SIZES):
        number[f"item{index}"] = torch.arange(1.0, 1 + height * width).view(height, width)
    fine.weight = lambda item: number[item.id]
    keys = [key for epoch in (2, 3, 4) for key in order.keys(epoch) if key.centre is not None]
    for key in keys:
        x, y = key.centre
        assert (fine[key]["weight"] == number[f"item{key.index}"][y, x]).any()
    assert len(keys) == 3 * 6


def test_the_scan_is_shown_as_other_walks_are(tmp_path, monkeypatch):
    titles = []
    threaded = datasets.class_uniform.threaded

    def noted(function, count, title):
        titles.append((count, title))
        return threaded(function, count, title)

    monkeypatch.setattr(datasets.class_uniform, "threaded", noted)
    for _ in range(2):
        found = find_centroids(Toy(), 4, tmp_path)
    assert titles == [(12, "class centroids of train")]
    assert len(list(chain(*found))) > 0
