"""What many tests use: real data and weights where they are, few threads, slow tests on demand."""

import os
import shutil
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get("SEGDOUBT_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config, items):
    slow = pytest.mark.skip(reason="slow: run with --slow")
    gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(gpu)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    """Makes a folder that the tests of a module share; it goes with the last of them.

    The checkpoints of all modules are gigabytes, which pytest would keep to the end of a run.
    """
    made = []

    def make(name):
        made.append(tmp_path_factory.mktemp(name))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder)


def shared(path: str) -> Path:
    """A file or folder of the real data, or a skip that says what is missing."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"{found} is absent; SEGDOUBT_SHARED names the folder of real data")
    return found


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    return shared("data/camvid")


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    return shared("weights/mobilenet_v2-imagenet-features.pth")


@pytest.fixture(scope="session")
def upstream_models() -> Path:
    return shared("specs/upstream_models")
