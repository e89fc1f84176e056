import pickle

import numpy as np
import pytest
import torch

from metrics.histogram import (
    BINS,
    COARSE_BINS,
    GREATEST,
    ExactValues,
    RankedScores,
    ScoreBins,
    coarsen,
    rank_sums,
    resampled_rank_sums,
)
from utils.types import Score

VOID = 255


def scored_pixels(count=5000, seed=0, spread=1.0):
    """Scores in [0, spread) and truth, a fifth of it void or meaningless."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=generator) * spread
    truth = (torch.rand(count, generator=generator) < 0.3).to(torch.uint8)
    odd = torch.rand(count, generator=generator) < 0.2
    truth[odd] = torch.tensor([2, 3, 254, VOID], dtype=torch.uint8).repeat(count)[: odd.sum()]
    return scores, truth


def loop_counts(bins, scores, truth):
    """The counts by a search of each score among the levels."""
    index = np.searchsorted(bins.levels(), scores.double().numpy(), side="right") - 1
    counts = np.zeros((2, BINS), np.int64)
    for row in range(2):
        np.add.at(counts[row], index[truth.numpy() == row], 1)
    return counts


@pytest.mark.parametrize("chunk", [1 << 19, 999])
def test_counts_equal_a_search_among_the_levels(chunk, monkeypatch):
    monkeypatch.setattr("metrics.histogram.CHUNK", chunk)
    scores, truth = scored_pixels()
    scores[:3] = torch.tensor([0.0, 1.0, 1 - 2**-24])
    truth[:3] = 1
    found = ScoreBins(1.0).counts(scores.view(50, 100), truth.view(50, 100))
    assert found.dtype == torch.int64
    expected = loop_counts(ScoreBins(1.0), scores.clamp(max=1 - 2**-17), truth)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.sum() == (truth < 2).sum()


def test_every_level_starts_its_own_bin():
    for bins in (ScoreBins(1.0), ScoreBins(0.25)):
        levels = torch.from_numpy(bins.levels()).float()
        counts = bins.counts(levels, torch.ones(BINS, dtype=torch.uint8))
        assert (counts[1] == 1).all()
    levels = ScoreBins(None).levels()
    middles = torch.from_numpy((levels[1:] + levels[:-1]) / 2).float()
    counts = ScoreBins(None).counts(middles, torch.zeros(BINS - 1, dtype=torch.uint8))
    assert (counts[0, :-1] == 1).all()
    assert counts[0, -1] == 0


def test_rounding_beyond_the_range_of_a_bounded_score_is_counted_at_the_ends():
    scores = torch.tensor([-1e-7, 0.0, 1.0, 1.0000001])
    counts = ScoreBins(1.0).counts(scores, torch.ones(4, dtype=torch.uint8))
    assert counts[1, 0] == 2
    assert counts[1, -1] == 2


def test_unbounded_bins_keep_the_order_of_scores_of_every_size():
    sizes = torch.logspace(-6, 10, 400)
    scores = torch.cat([-sizes.flip(0), torch.zeros(1), sizes])
    bins = ScoreBins(None)
    index = [int(bins.counts(one, torch.ones_like(one).byte())[1].argmax()) for one in scores]
    assert index == sorted(index)
    levels = bins.levels()
    large = scores.abs().numpy() > 0.1
    sizes = scores[large].double().numpy()
    assert np.abs(levels[index][large] / sizes - 1).max() < 1.1e-3
    np.testing.assert_allclose(levels[0], -GREATEST)


def test_scores_as_large_as_float32_are_counted_in_the_last_bins():
    scores = torch.tensor([3e38, 1e30, 1e11, -1e11, -1e30, -3e38])
    counts = ScoreBins(None).counts(scores, torch.zeros(6, dtype=torch.uint8))
    assert counts[0, -1] == 3
    assert counts[0, 0] == 3


@pytest.mark.parametrize("highest", [1.0, None])
def test_scores_that_are_not_finite_are_in_no_bin(highest):
    scores = torch.tensor([0.5, np.nan, np.inf, -np.inf, np.nan, 0.25])
    truth = torch.tensor([0, 0, 1, 1, VOID, 1], dtype=torch.uint8)
    sums = rank_sums("entropy", ScoreBins(highest), scores, truth)
    assert sums["entropy.counts"].sum(1).tolist() == [1, 1]
    assert sums["entropy.pixels"].tolist() == [5]


def test_half_precision_and_slices_count_like_float32_and_copies():
    scores, truth = (values.view(50, 100) for values in scored_pixels())
    half = scores.half()
    bins = ScoreBins(1.0)
    assert torch.equal(bins.counts(half, truth), bins.counts(half.float(), truth))
    every_other = scores[:, ::2], truth[:, ::2]
    copies = [values.clone() for values in every_other]
    assert torch.equal(bins.counts(*every_other), bins.counts(*copies))


@pytest.mark.parametrize("highest", [1.0, None])
def test_counts_of_parts_add_up_to_those_of_the_whole(highest):
    scores, truth = scored_pixels()
    bins = ScoreBins(highest)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
    parts = [bins.counts(scores[part], truth[part]) for part in order.split(700)]
    assert torch.equal(sum(reversed(parts)), bins.counts(scores, truth))


def test_no_pixel_gives_no_count():
    nothing = torch.zeros(0), torch.zeros(0, dtype=torch.uint8)
    assert ScoreBins(1.0).counts(*nothing).sum() == 0
    scores, truth = ExactValues.of(*nothing).values()
    assert len(scores) == len(truth) == 0


def test_coarse_counts_are_those_of_the_coarse_levels():
    for bins in (ScoreBins(1.0), ScoreBins(None)):
        scores, truth = scored_pixels(spread=1.0)
        counts = coarsen(bins.counts(scores, truth))
        joined = BINS // COARSE_BINS
        assert counts.shape == (2, COARSE_BINS)
        np.testing.assert_array_equal(bins.levels(COARSE_BINS), bins.levels()[::joined])
        first = bins.counts(scores, truth)[:, : 600 * joined].sum(1)
        assert torch.equal(counts[:, :600].sum(1), first)


def test_exact_values_are_kept_until_they_are_too_many(monkeypatch):
    monkeypatch.setattr("metrics.histogram.EXACT_PIXELS", 5000)
    scores, truth = scored_pixels()
    first, second = (ExactValues.of(scores[part], truth[part]) for part in (slice(0, 2000),) * 2)
    both = first + second
    assert both.complete
    assert (both + ExactValues.of(scores[:1000], truth[:1000])).complete
    over = both + ExactValues.of(scores[:1001], truth[:1001])
    assert not over.complete
    assert over.parts == ()
    assert not (over + first).complete
    assert ExactValues.of(scores.repeat(2), truth.repeat(2)).parts == ()


def test_exact_values_do_not_depend_on_the_order_of_their_parts():
    scores, truth = scored_pixels()
    parts = [ExactValues.of(scores[i : i + 900], truth[i : i + 900]) for i in range(0, 5000, 900)]
    forwards, backwards = parts[0], parts[-1]
    for part in parts[1:]:
        forwards = forwards + part
    for part in parts[-2::-1]:
        backwards = part + backwards if part.pixels % 2 else backwards + part
    known = truth < 2
    expected = sorted(zip(scores[known].tolist(), truth[known].tolist(), strict=True))
    for values in (forwards, backwards):
        assert sorted(zip(*(each.tolist() for each in values.values()), strict=True)) == expected


def test_exact_values_are_copies_and_can_be_sent():
    scores, truth = scored_pixels(10)
    kept = ExactValues.of(scores, truth)
    before = [each.copy() for each in kept.values()]
    scores.zero_()
    truth.zero_()
    for values in (kept, pickle.loads(pickle.dumps(kept))):
        assert values.pixels == 10
        for found, expected in zip(values.values(), before, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_resamples_keep_coarse_tensors_alone():
    sums = rank_sums("msp", ScoreBins(1.0), *scored_pixels())
    kept = resampled_rank_sums(sums)
    assert {name: tuple(value.shape) for name, value in kept.items()} == {
        "msp.counts": (2, COARSE_BINS),
        "msp.pixels": (1,),
    }
    assert kept["msp.counts"].sum() == sums["msp.pixels"]


def test_a_metric_of_scores_takes_their_limits_and_needs():
    class Nothing(RankedScores):
        def sums_of(self, batch, prediction):
            return {}

        def finish(self, sums):
            return {}

    scores = [
        Score("low", lambda prediction: prediction.logits, highest=lambda classes: classes / 2),
        Score("free", lambda prediction: prediction.logits, needs=frozenset({"temperature"})),
    ]
    metric = Nothing(["a", "b", "c"], scores)
    assert metric.bins == {"low": ScoreBins(1.5), "free": ScoreBins(None)}
    assert metric.needs == {"temperature"}
    assert metric.variant is None


@pytest.mark.gpu
@pytest.mark.parametrize("highest", [1.0, None])
def test_a_gpu_counts_like_the_cpu(highest, monkeypatch):
    monkeypatch.setattr("metrics.histogram.LARGEST_CODES", 3000)
    scores, truth = scored_pixels()
    scores[:4] = torch.tensor([np.nan, np.inf, -np.inf, 1.0])
    bins = ScoreBins(highest)
    found = bins.counts(scores.cuda(), truth.cuda()).cpu()
    expected = bins.counts(scores, truth)
    if highest is not None:
        assert torch.equal(found, expected)
    # arcsinh may differ in the last digit, which moves few scores to the neighbouring bin
    moved = (found.cumsum(1) - expected.cumsum(1)).abs()
    assert moved.max() <= 3
    assert torch.equal(found.sum(1), expected.sum(1))
    values = rank_sums("a", bins, scores.cuda(), truth.cuda())
    assert values["a.pixels"].item() == (truth < 2).sum()
    np.testing.assert_array_equal(values["a.exact"].values()[1], truth[truth < 2].numpy())


@pytest.mark.gpu
def test_counting_does_not_wait_for_the_gpu():
    scores, truth = (values.cuda() for values in scored_pixels())
    rank_sums("a", ScoreBins(1.0), scores, truth)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rank_sums("a", ScoreBins(None), scores, truth)
    finally:
        torch.cuda.set_sync_debug_mode("default")
