import os
import threading
import time

import pytest

from datasets.parallel import threaded, usable_cores


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_results_come_in_order(count):
    def slow_at_first(index):
        time.sleep(0.02 if index == 0 else 0)
        return index**2

    assert list(threaded(slow_at_first, count, "squares")) == [i**2 for i in range(count)]


def test_a_slow_consumer_holds_few_results():
    done = []
    results = threaded(lambda index: done.append(index), 1000, "items")
    next(results)
    time.sleep(0.05)
    assert len(done) < 1000
    results.close()


def test_an_error_stops_the_pass():
    def fail_at_three(index):
        if index == 3:
            raise ValueError("three")
        return index

    results = threaded(fail_at_three, 10_000, "items")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert threading.active_count() < 20


@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_threads_work_as_are_asked_for_each_of_them_prepared(workers):
    started, seen = [], set()

    def work(index):
        time.sleep(0.002)
        seen.add(threading.get_ident())
        return index

    def prepare():
        started.append(threading.get_ident())

    found = list(threaded(work, 30, "items", workers=workers, initializer=prepare))
    assert found == list(range(30))
    assert len(started) == workers
    assert seen == set(started)


@pytest.mark.parametrize(("found", "expected"), [(3, 3), (None, 1)])
def test_a_system_without_affinities_has_all_its_cores(monkeypatch, found, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: found)
    assert usable_cores() == expected
    assert list(threaded(abs, 4, "items")) == [0, 1, 2, 3]
