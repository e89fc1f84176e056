import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import provenance
from utils.provenance import describe_device, git_state, write_opts


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "--quiet", "-m", "first")
    return tmp_path, git("rev-parse", "HEAD")


def test_a_clean_and_a_changed_checkout(checkout):
    folder, commit = checkout
    assert git_state(folder) == (commit, False)
    (folder / "results.json").write_text("{}")  # untracked files do not change the code
    assert git_state(folder) == (commit, False)
    (folder / "code.py").write_text("a = 2\n")
    assert git_state(folder) == (commit, True)


def test_a_folder_within_another_checkout_has_no_commit_of_its_own(checkout):
    folder, _ = checkout
    (folder / "inner").mkdir()
    assert git_state(folder / "inner") == (None, None)


def test_outside_a_checkout_and_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == (None, None)
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) == (None, None)


def test_opts_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "--data_root", "my data"])
    monkeypatch.setattr(provenance, "git_state", lambda: ("abc", True))
    opts = {"lr": 0.1, "data_root": Path("my data"), "ckpt": None}
    path = write_opts(tmp_path / "run", opts, device=torch.device("cpu"))
    assert path == tmp_path / "run" / "opts.json"
    content = json.loads(path.read_text())
    assert content.pop("versions") == {
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
        "torchvision": pytest.importorskip("torchvision").__version__.partition("+")[0],
        "numpy": pytest.importorskip("numpy").__version__,
    }
    assert content == {
        "opts": {"lr": 0.1, "data_root": "my data", "ckpt": None},
        "command": "python main.py --data_root 'my data'",
        "commit": "abc",
        "dirty": True,
        "device": f"cpu ({torch.get_num_threads()} threads)",
    }
    assert platform.node() not in path.read_text()


def test_a_gpu_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert describe_device(torch.device("cuda", 1)) == "GPU 1"
