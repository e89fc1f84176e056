import pytest
import torch

from metrics.calibration_errors import ConfidenceBins
from metrics.calibration_sums import (
    _bins_on_cpu,
    _bins_on_device,
    _paired_codes,
    _tally_in_copies,
    confidence_sums,
    tally,
)


@pytest.mark.parametrize("cells", [1, 7, 5000])
@pytest.mark.parametrize("table", [1, 64, 1 << 20])
def test_copies_of_the_cells_change_no_sum(cells, table, monkeypatch):
    monkeypatch.setattr("metrics.calibration_sums.TABLE_CELLS", table)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, cells, (2, 13, 17), generator=generator)
    weights = torch.rand(codes.shape, generator=generator)
    counts = _tally_in_copies(codes, cells, torch.ones_like(codes))
    assert torch.equal(counts, tally(codes, cells))
    assert counts.dtype == torch.int64
    assert counts.sum() == codes.numel()
    sums = _tally_in_copies(codes, cells, weights.double())
    torch.testing.assert_close(sums, tally(codes, cells, weights), rtol=1e-12, atol=0)
    torch.testing.assert_close(sums.sum(), weights.double().sum())


@pytest.mark.parametrize("number", [1, 10, 15])
def test_both_ways_to_bin_the_probabilities_agree(number):
    generator = torch.Generator().manual_seed(0)
    likely = torch.randn(2, 5, 31, 33, generator=generator).mul(9).softmax(1)
    likely[0, :, 0, :8] = torch.arange(5.0)[:, None] / 10  # on edges
    kept = torch.rand(2, 31, 33, generator=generator) < 0.7
    likely[:, :, 5, 5:9] = torch.nan
    kept[:, 5, 5:9] = False
    sums, squares = _bins_on_cpu(likely, kept, number)
    others, other_squares = _bins_on_device(likely, kept, number)
    torch.testing.assert_close(sums, others, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(squares[kept], other_squares[kept])


def test_confidences_are_summed_by_bin_and_block(monkeypatch):
    monkeypatch.setattr("metrics.calibration_sums.BLOCK_PIXELS", 50)
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(2, 9, 11, generator=generator)
    right, kept = (torch.rand(confidence.shape, generator=generator) < 0.6 for _ in range(2))
    confidence[~kept] = torch.nan
    bins = ConfidenceBins(15)
    sums = confidence_sums(confidence, right, kept, bins)
    for row, chosen in enumerate((kept & ~right, kept & right)):
        expected = torch.bincount(bins.codes(confidence[chosen]), minlength=bins.size)
        assert torch.equal(sums["counts"][row], expected)
    known = confidence[kept]
    expected = torch.zeros(bins.size, dtype=torch.float64)
    expected.index_add_(0, bins.codes(known), known.double())
    torch.testing.assert_close(sums["confidence"], expected, rtol=1e-12, atol=0)
    codes = _paired_codes(confidence, right, kept, bins)
    assert set(codes[~kept].tolist()) == {2 * bins.size}
