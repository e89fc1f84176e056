import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.files import (
    WriteError,
    explain_write_errors,
    json_ready,
    open_atomically,
    remove_leftovers,
    write_atomically,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_missing_folders_are_made_and_the_bytes_are_there(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.bin"]


def test_the_old_content_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with open_atomically(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_an_error_in_the_block_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), open_atomically(path) as file:
        file.write("text, not bytes")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "no permission to write in {folder}"),
        (errno.EROFS, "no permission to write in {folder}"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "a limit is reached"),
        (errno.ENOTDIR, "{folder} is not a folder"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_an_error_names_the_path_and_the_reason(tmp_path, number, words):
    path = tmp_path / "file.bin"
    with pytest.raises(WriteError) as caught, explain_write_errors(path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert words.format(folder=tmp_path) in str(caught.value)
    assert caught.value.errno == number
    assert isinstance(caught.value, ValueError)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(WriteError, match=r"taken is not a folder"):
        write_atomically(tmp_path / "taken" / "file.bin", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="no permission"):
        write_atomically(tmp_path / "file.bin", b"")


@pytest.fixture
def small_files():
    """Files may not grow beyond 64 KiB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_leaves_the_old_content(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(WriteError, match=r"file\.bin: the disk is full or a limit is reached"):
        write_atomically(path, bytes(1 << 17))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_recognised_behind_the_error_of_torch_save(tmp_path):
    with (
        pytest.raises(WriteError, match="the disk is full"),
        open_atomically(tmp_path / "x.pth") as file,
    ):
        torch.save(torch.zeros(1 << 17), file)
    assert names(tmp_path) == []


def test_a_runtime_error_without_a_system_error_stays_itself(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), open_atomically(tmp_path / "x"):
        raise RuntimeError("mine")


def test_a_process_killed_while_writing_leaves_the_old_content_and_a_leftover(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    program = (
        "import os, sys\nfrom utils.files import open_atomically\n"
        "with open_atomically(sys.argv[1]) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, path], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    other = tmp_path / ".file.bin.notes.tmp"
    other.write_bytes(b"")
    assert len(names(tmp_path)) == 3
    remove_leftovers(path)
    assert names(tmp_path) == [other.name, "file.bin"]


def test_values_in_json(tmp_path):
    path = tmp_path / "value.json"
    write_json(
        path,
        {
            "nan": float("nan"),
            "inf": np.float32("inf"),
            "tensor": torch.tensor([1.0, float("nan")]),
            "count": np.int64(7),
            "path": Path("a") / "b",
            "set": {"b", "a"},
            3: (True, None, "ü"),
        },
    )
    text = path.read_text(encoding="utf-8")
    assert "ü" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "nan": None,
        "inf": None,
        "tensor": [1.0, None],
        "count": 7,
        "path": "a/b",
        "set": ["a", "b"],
        "3": [True, None, "ü"],
    }


def test_an_object_without_a_form_in_json_is_refused():
    with pytest.raises(TypeError, match="object has no form in JSON"):
        json_ready({"a": object()})
