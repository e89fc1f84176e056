import fcntl
import multiprocessing

import pytest

from tests.utils.locking import another_run, is_held
from utils import folder_locks
from utils.folder_locks import held_folder, hold_folder, release_folder

REFUSAL = "it is taken: wait"


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    with another_run(tmp_path), pytest.raises(ValueError, match=REFUSAL):
        hold_folder(tmp_path, REFUSAL)
    for _ in range(2):
        hold_folder(tmp_path, REFUSAL)
        assert is_held(tmp_path), "by this process, which may hold it again"
    release_folder(tmp_path)
    assert not is_held(tmp_path)
    release_folder(tmp_path)


def test_an_error_in_the_block_releases_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), held_folder(tmp_path, REFUSAL):
        assert is_held(tmp_path) / 0
    assert not is_held(tmp_path)


def test_what_was_made_to_be_held_goes_unless_it_was_filled(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("made/run", "filled/run", "there/run", "there"):
        with held_folder(tmp_path / name, REFUSAL):
            if name == "filled/run":
                (tmp_path / name / "file").touch()
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"filled", "filled/run", "filled/run/file", "there"}


def test_workers_that_outlive_a_run_hold_nothing(tmp_path):
    hold_folder(tmp_path, REFUSAL)
    begun, done = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=lambda: (done.send(True), done.recv()))
    worker.start()
    try:
        assert begun.recv()
        assert is_held(tmp_path)
        release_folder(tmp_path)
        assert worker.is_alive()
        assert not is_held(tmp_path)
    finally:
        worker.kill()
        worker.join()


def test_every_process_of_a_run_hears_that_the_folder_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_locks, "is_main", lambda: False)
    hold_folder(tmp_path, REFUSAL)
    assert not is_held(tmp_path), "by the first process alone"
    monkeypatch.setattr(folder_locks, "broadcast_object", lambda value: True)
    with pytest.raises(ValueError, match=REFUSAL):
        hold_folder(tmp_path, REFUSAL)


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(95, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    hold_folder(tmp_path / "new" / "labels", REFUSAL)
    assert (tmp_path / "new" / "labels").is_dir()
    release_folder(tmp_path / "new" / "labels")
