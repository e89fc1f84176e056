import math

import pytest
import torch

from benchmarks import memory

CPU = torch.device("cpu")
HELD = torch.ones(1_000_000)  # what was held before counts nowhere


def growth_of_copies(times: int) -> float:
    """Of two copies, one after the other, in a process of its own, which has no blocks to reuse."""
    memory.growth(lambda: HELD.repeat(1), CPU)
    return memory.growth(lambda: [HELD.repeat(times).sum() for _ in range(2)], CPU)


def test_growth_is_that_of_the_call_at_its_peak():
    grown = memory.in_new_process(growth_of_copies, 10, returning=True)
    assert 36 < grown < 60  # 40 MB each


def test_the_peak_of_this_process_is_what_it_held_at_least():
    held = torch.ones(10_000_000)
    assert memory.peak_of_this_process() > held.nbytes / 1e6


def test_a_new_process_is_given_the_arguments():
    assert memory.in_new_process(math.dist, (0, 0), (3, 4)) == 5
    assert memory.in_new_process(math.sqrt, 4, returning=True) == 2


def test_a_new_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"measuring the memory failed:\n(.|\n)*ValueError"):
        memory.in_new_process(math.sqrt, -1)


def test_blocks_return_to_the_system_where_that_is_asked(monkeypatch):
    given = []

    class Done:
        returncode, stdout = 0, "1\n"

    monkeypatch.setattr(memory.subprocess, "run", lambda *_, env, **__: given.append(env) or Done)
    for returning in (False, True):
        assert memory.in_new_process(math.sqrt, 1, returning=returning) == 1
    assert [env.get("MALLOC_MMAP_THRESHOLD_") for env in given] == [None, "65536"]


def test_there_is_free_memory():
    assert memory.free_memory(CPU) > 10e6
