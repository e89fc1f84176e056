import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from datasets.camvid import CamVid
from datasets.loaders import eval_batches, paired, train_batches
from datasets.transforms import eval_transform, train_transform
from tests.datasets import layouts
from tests.datasets.toys import Toy

ROOT = Path(__file__).parents[2]
RANDOM = train_transform("scale_crop", (6, 6), flip=0.5, colour_jitter=0.5)


def same(first, second):
    return first["id"] == second["id"] and all(
        torch.equal(first[key], second[key]) for key in ("image", "label")
    )


def first_batches(count, dataset=None, **arguments):
    arguments = {"batch_size": 3, "seed": 5, "num_workers": 0, **arguments}
    batches = train_batches(dataset or Toy(transform=RANDOM), **arguments)
    taken = list(islice(batches, count))
    batches.close()
    return taken


def test_a_batch_is_stacked():
    (batch,) = first_batches(1, Toy(transform=RANDOM, weight=lambda item: torch.ones(6, 8)))
    assert batch["image"].shape == (3, 3, 6, 6)
    assert batch["label"].shape == batch["weight"].shape == (3, 6, 6)
    assert batch["image"].dtype == batch["label"].dtype == torch.uint8
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert type(batch["image"]) is type(batch["label"]) is torch.Tensor
    assert batch["dataset"] == ["toy"] * 3
    assert batch["scene"] == ["scene"] * 3


def test_marks_of_unknown_objects_are_stacked(tmp_path):
    dataset = CamVid(layouts.camvid(tmp_path), "test", ood_ids=(11,))
    (batch,) = eval_batches(dataset, batch_size=4, num_workers=0)
    assert batch["ood"].shape == batch["label"].shape == (4, 6, 8)
    assert type(batch["ood"]) is torch.Tensor
    assert batch["ood"].dtype == torch.uint8
    assert torch.equal(batch["ood"] == 0, batch["label"] != 255)
    (plain,) = eval_batches(CamVid(tmp_path, "test"), batch_size=4, num_workers=0)
    assert "ood" not in plain


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_nothing(num_workers):
    alone = first_batches(10)
    assert all(map(same, alone, first_batches(10, num_workers=num_workers)))
    assert not same(alone[0], alone[4])


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_run_goes_on_where_it_stopped(start):
    whole = first_batches(20, accumulation=2, batch_size=2)
    resumed = first_batches(20 - 2 * start, accumulation=2, batch_size=2, start_step=start)
    assert all(map(same, whole[2 * start :], resumed))


def test_an_epoch_shows_every_image_once_and_epochs_differ():
    batches = first_batches(8)
    ids = [batch["id"] for batch in batches]
    first, second = (list(chain(*ids[start : start + 4])) for start in (0, 4))
    assert sorted(first) == sorted(second) == sorted(f"item{i}" for i in range(12))
    assert first != second
    again = {
        name: image for b in batches[4:] for name, image in zip(b["id"], b["image"], strict=True)
    }
    assert not torch.equal(again[ids[0][0]], batches[0]["image"][0])


def test_another_seed_gives_another_order():
    assert first_batches(1, seed=1)[0]["id"] != first_batches(1, seed=2)[0]["id"]


def test_too_few_images_say_which_batch_size_fits():
    for batch_size, accumulation, advice in ((13, 1, "--batch_size 12 fits"), (3, 5, "10 fits")):
        with pytest.raises(ValueError, match=f"the training split has 12; .*{advice}"):
            train_batches(
                Toy(), batch_size=batch_size, accumulation=accumulation, seed=0, num_workers=0
            )
    with pytest.raises(ValueError, match="takes 20 images, .* has 12; give it more images"):
        train_batches(Toy(), batch_size=1, accumulation=20, seed=0, num_workers=0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_keeps_the_order_and_can_be_repeated(num_workers):
    batches = eval_batches(Toy(), batch_size=5, num_workers=num_workers)
    for _ in range(2):
        walk = list(batches)
        assert [len(batch["id"]) for batch in walk] == [5, 5, 2]
        assert list(chain(*(batch["id"] for batch in walk))) == [f"item{i}" for i in range(12)]
    assert len(batches) == 3


def test_mixed_sizes_are_batched_with_their_like():
    sizes = [(4, 4), (4, 4), (4, 4), (6, 4), (4, 4), (6, 4), (6, 4)]
    walk = list(eval_batches(Toy(sizes=sizes), batch_size=2, num_workers=0))
    assert [len(batch["id"]) for batch in walk] == [2, 1, 1, 1, 2]
    assert [tuple(batch["label"].shape[1:]) for batch in walk] == [
        (4, 4), (4, 4), (6, 4), (4, 4), (6, 4)
    ]  # fmt: skip


def test_images_of_any_size_are_batched_at_the_middle_of_a_size():
    toy = Toy(sizes=[(4, 4), (6, 4), (5, 9)], transform=eval_transform(None, centre=(8, 6)))
    (batch,) = eval_batches(toy, batch_size=3, num_workers=0)
    assert batch["image"].shape == (3, 3, 8, 6)
    assert batch["label"].shape == (3, 8, 6)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_processes_share_an_evaluation_without_loss_or_repetition(world_size):
    toy = Toy(sizes=[(4, 4)] * 5 + [(6, 4)] * 6)
    ids = [
        name
        for rank in range(world_size)
        for batch in eval_batches(
            toy, batch_size=2, num_workers=0, rank=rank, world_size=world_size
        )
        for name in batch["id"]
    ]
    assert Counter(ids) == Counter(item.id for item in toy.items)


def test_pairs_carry_the_target_under_a_prefix():
    source = train_batches(Toy(), batch_size=2, seed=0, num_workers=0)
    target = train_batches(Toy("val"), batch_size=3, seed=1, num_workers=0)
    joined = paired(source, target)
    batch = next(joined)
    assert len(batch["id"]) == 2
    assert len(batch["target_id"]) == 3
    assert batch["target_image"].shape[0] == 3
    assert set(batch) == {*(k for k in batch if k.startswith("target_")), *map(strip, batch)}
    joined.close()
    assert next(source, None) is next(target, None) is None


def strip(key):
    return key.removeprefix("target_")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_data_is_one_plain_error(num_workers):
    with pytest.raises(ValueError, match="^item 7 is bad$"):
        list(eval_batches(Toy(bad={7}), batch_size=2, num_workers=num_workers))
    batches = train_batches(Toy(bad={7}), batch_size=12, seed=0, num_workers=num_workers)
    with pytest.raises(ValueError, match="^item 7 is bad$"):
        next(batches)


def test_loading_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    first_batches(3)
    list(eval_batches(Toy(), batch_size=4, num_workers=0))
    assert torch.equal(state, torch.random.get_rng_state())


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_closing_a_stream_ends_its_workers():
    before = set(children(os.getpid()))
    batches = train_batches(Toy(), batch_size=2, seed=0, num_workers=2)
    next(batches)
    workers = set(children(os.getpid())) - before
    assert len([pid for pid in workers if alive(pid)]) >= 2
    batches.close()
    deadline = time.monotonic() + 5
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


PROGRAM = """
import signal, sys
sys.path.insert(0, {root!r})
from tests.datasets.toys import Toy
from datasets.loaders import train_batches
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
batches = train_batches(Toy(), batch_size=2, seed=0, num_workers=2)
next(batches)
print("ready", flush=True)
while len(stopped) < 2:
    next(batches)
for _ in range(20):
    next(batches)
print("went on", flush=True)
{end}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", ["batches.close()", "raise SystemExit(0)"])
def test_workers_outlive_signals_and_not_the_program(end):
    """SIGINT and SIGTERM go to the whole group, as from a terminal or a batch system."""
    program = PROGRAM.format(root=str(ROOT), end=end)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        workers = children(process.pid)
        assert len(workers) >= 2
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "went on\n"
        assert process.wait(timeout=20) == 0
        assert not any(map(alive, workers))
    finally:
        process.kill()
        process.stdout.close()
