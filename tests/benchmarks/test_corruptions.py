import gc

import pytest
import torch

from benchmarks.corruptions import DECODING, run, smooth_image
from benchmarks.report import Settings
from datasets.corruptions import CORRUPTIONS


@pytest.fixture(scope="module")
def section():
    gc.freeze()  # the timing collects before each sample, which is slow among many imports
    yield run(Settings(torch.device("cpu"), quick=True))
    gc.unfreeze()


def test_every_kind_is_measured_beside_decoding(section):
    (table,) = section.tables
    assert [row["corruption"] for row in table.rows] == [*CORRUPTIONS, DECODING]
    assert all(row["32x48, ms"] > 0 and row["48x32, ms"] > 0 for row in table.rows)


def test_the_target_is_the_slowest_kind_at_the_first_size(section):
    times = {row["corruption"]: row["32x48, ms"] for row in section.tables[0].rows}
    del times[DECODING]
    (target,) = section.targets
    assert target.value == max(times.values())
    assert max(times, key=times.get) in target.what


def test_the_image_has_structure_but_no_flat_parts():
    image = smooth_image((60, 80)).float()
    assert image.std() == pytest.approx(50, rel=0.1)
    neighbours = image.diff(dim=2).abs().mean()
    assert 0.05 < neighbours / image.std() < 0.5
