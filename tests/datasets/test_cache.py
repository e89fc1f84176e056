import multiprocessing
import os
import pickle
import signal

import pytest
import torch

from datasets.cache import ArrayCache
from datasets.camvid import CamVid
from datasets.loaders import eval_batches
from datasets.transforms import Transform, eval_transform, train_transform
from tests.datasets import layouts
from tests.datasets.toys import Toy
from utils.files import WriteError

MIXED = [(4, 6), (9, 5), (4, 6), (7, 7)]


@pytest.mark.parametrize(
    "transform",
    [
        eval_transform(None),
        eval_transform((5, 7)),
        train_transform("resize", (5, 7), flip=0.5, colour_jitter=0.5),
        train_transform("scale_crop", (5, 5), flip=0.5),
    ],
    ids=["native", "resized", "flipped", "cropped"],
)
def test_a_cached_sample_equals_the_sample(tmp_path, transform):
    plain = Toy(sizes=MIXED, transform=transform)
    cached = Toy(sizes=MIXED, transform=transform, cache=tmp_path)
    for index in range(len(MIXED)):
        for key in ("image", "label"):
            assert torch.equal(plain[index][key], cached[index][key])


def test_each_item_is_read_once(tmp_path):
    toy = Toy(cache=tmp_path)
    for _ in range(3):
        toy[4]
    assert sorted(toy.reads) == list(range(12))
    again = Toy(cache=tmp_path)
    again[4]
    assert again.reads == []


def test_workers_and_copies_read_the_same_file(tmp_path):
    toy = Toy(sizes=MIXED, cache=tmp_path)
    toy.prepare()
    copy = pickle.loads(pickle.dumps(toy))
    assert torch.equal(copy[1]["image"], toy[1]["image"])
    assert copy.reads == toy.reads
    ids = [b["id"] for b in eval_batches(toy, batch_size=1, num_workers=2)]
    assert len(ids) == 4


def test_writing_to_a_sample_leaves_the_file_alone(tmp_path):
    toy = Toy(cache=tmp_path)
    before = toy[0]["image"].clone()
    toy[0]["image"].zero_()
    assert torch.equal(Toy(cache=tmp_path)[0]["image"], before)


def test_what_changes_the_content_changes_the_name(tmp_path):
    root = layouts.camvid(tmp_path / "data")
    folder = tmp_path / "cache"

    def build(split="train", transform=None):
        CamVid(root, split, cache=folder, transform=transform or Transform()).prepare()
        return len(list(folder.glob("*.bin")))

    assert build() == 1
    assert build() == 1
    assert build(transform=eval_transform((3, 3))) == 2
    assert build("val") == 3
    label = root / "trainannot" / "0001TP_train00000.png"
    layouts.write_label(label, layouts.filled(3))
    os.utime(label, (1, 1))
    assert build() == 4


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="item 7 is bad"):
        Toy(bad={7}, cache=tmp_path).prepare()
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    toy = Toy(cache=tmp_path)
    toy.prepare()
    assert len(toy.reads) == 12


def test_an_interrupted_build_is_done_again(tmp_path):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=build_and_die, args=(tmp_path,))
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob(".*.tmp"))
    toy = Toy(cache=tmp_path)
    assert torch.equal(toy[3]["image"], Toy()[3]["image"])
    assert not list(tmp_path.glob(".*.tmp"))


def build_and_die(folder):
    def read(index):
        if index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return Toy().read(index)

    toy = Toy(cache=folder)
    toy.read = read
    toy.prepare()


def test_of_two_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_reads, args=(tmp_path, i)) for i in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    counts = sorted(int(path.read_text()) for path in tmp_path.glob("*.count"))
    assert counts == [0, 12]


def count_reads(folder, number):
    toy = Toy(cache=folder / "cache")
    toy.prepare()
    (folder / f"{number}.count").write_text(str(len(toy.reads)))


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises((WriteError, FileExistsError)):
        ArrayCache.open(tmp_path / "cache", "x", 1, Toy().read)
