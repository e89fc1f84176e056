import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn

from tests.uncertainty.toys import ToyNetwork, ensemble, predictor
from uncertainty.statistics import LEAST_VARIANCE, ClassMoments, StatisticsCollector
from uncertainty.statistics_files import load_statistics, save_statistics
from utils.types import Prediction


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ToyNetwork()


@pytest.fixture
def images():
    return torch.randn(6, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def collect(network, batches):
    """Statistics of batches of images."""
    collector = StatisticsCollector(network)
    run(collector, network, batches)
    return collector.statistics()


def run(collector, network, batches):
    with torch.no_grad(), collector.attached():
        for images in batches:
            collector.update({}, predictor(network)(images))


def test_maximum_logits_by_predicted_class_against_numpy(network, images):
    found = collect(network, images.split(2))
    logits = network(images).detach().double().numpy()
    classes, highest = logits.argmax(1), logits.max(1)
    assert len(found.members) == 1
    moments = found.members[0]
    assert moments.count.tolist() == np.bincount(classes.ravel(), minlength=4).tolist()
    for index in range(4):
        values = highest[classes == index]
        assert len(values) > 1
        assert moments.mean[index].item() == pytest.approx(values.mean(), rel=1e-6)
        assert moments.variance[index].item() == pytest.approx(values.var(), rel=1e-5)
    assert found.joint is moments


def test_penultimate_features_against_numpy(network, images):
    (found,) = collect(network, images.split(4)).heads
    features = network.features(images).detach().double().numpy()
    assert found.pixels == 6 * 8 * 10
    np.testing.assert_allclose(found.mean_features, features.mean((0, 2, 3)), rtol=1e-6)
    assert int(found.counts.sum()) == features.size
    for share in (60, 75, 90, 99.5):
        expected = np.percentile(features, share)
        assert found.percentile(share) == pytest.approx(expected, rel=2**-8), share


def test_an_ensemble_has_moments_of_each_member_and_of_the_mean(images):
    torch.manual_seed(2)
    members = nn.ModuleList(ToyNetwork() for _ in range(3))
    found = collect(members, images.split(3))
    assert len(found.members) == len(found.heads) == 3
    for member, moments, head in zip(members, found.members, found.heads, strict=True):
        alone = collect(member, [images])
        assert torch.equal(moments.count, alone.members[0].count)
        torch.testing.assert_close(moments.mean, alone.members[0].mean)
        torch.testing.assert_close(head.mean_features, alone.heads[0].mean_features)
        assert torch.equal(head.counts, alone.heads[0].counts)
    with torch.no_grad():
        mean = torch.stack([member(images) for member in members]).mean(0)
    classes, highest = mean.argmax(1), mean.amax(1).double()
    for index in range(4):
        values = highest[classes == index]
        assert found.joint.mean[index].item() == pytest.approx(values.mean().item(), rel=1e-6)


def assert_equal(found, expected):
    """Equal counts, and sums up to float64's rounding."""
    moments = (*found.members, found.joint), (*expected.members, expected.joint)
    for one, other in zip(*moments, strict=True):
        assert torch.equal(one.count, other.count)
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(one.variance, other.variance, rtol=1e-9, atol=0)
    for one, other in zip(found.heads, expected.heads, strict=True):
        assert one.pixels == other.pixels
        assert torch.equal(one.bins, other.bins)
        assert torch.equal(one.counts, other.counts)
        torch.testing.assert_close(one.mean_features, other.mean_features, rtol=1e-12, atol=0)


def test_batches_and_order_do_not_matter(network, images):
    # in float64, since convolutions round differently by the size of the batch
    network, images = network.double(), images.double()
    whole = collect(network, [images])
    assert_equal(collect(network, images.split(1)), whole)
    assert_equal(collect(network, [images[4:], images[:1], images[1:4]]), whole)


def run_process(rank, folder, images):
    """One of two: both see images, then the second sees none."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    network = ToyNetwork().double()
    for name, shares in (("both", (images[:4], images[4:])), ("one", (images, None))):
        collector = StatisticsCollector(network)
        run(collector, network, [shares[rank]] if shares[rank] is not None else [])
        collector.all_reduce()
        save_statistics(f"{folder}/{name}{rank}", collector.statistics())
    distributed.destroy_process_group()


def test_two_processes_add_up_even_where_one_saw_no_image(images, tmp_path):
    images = images.double()
    multiprocessing.spawn(run_process, (str(tmp_path), images), nprocs=2)
    torch.manual_seed(0)
    expected = collect(ToyNetwork().double(), [images])
    for name in ("both0", "both1", "one0", "one1"):
        assert_equal(load_statistics(tmp_path / name), expected)


def test_rare_classes_have_the_moments_of_all_pixels():
    moments = ClassMoments(
        torch.tensor([3, 1, 0]),
        torch.tensor([6.0, 10.0, 0.0], dtype=torch.float64),
        torch.tensor([14.0, 100.0, 0.0], dtype=torch.float64),
    )  # of the values 1, 2, 3 and 10
    assert moments.mean.tolist() == pytest.approx([2, 4, 4])
    assert moments.variance.tolist() == pytest.approx([2 / 3, 12.5, 12.5])


def test_a_variance_is_never_zero():
    equal = ClassMoments(
        torch.tensor([4]),
        torch.tensor([4e4], dtype=torch.float64),
        torch.tensor([4e8], dtype=torch.float64),
    )
    assert equal.variance.tolist() == [LEAST_VARIANCE]


def refuse_small(module, arguments, features):
    if features.shape[2] < 2:
        raise RuntimeError("too small")


def test_hooks_go_with_the_block_also_after_an_error(network, images):
    collector = StatisticsCollector(network)
    network.body.register_forward_hook(refuse_small)
    with pytest.raises(RuntimeError, match="too small"):
        run(collector, network, [images, images[:, :, :1]])
    counted = collector.seen[0].pixels
    assert counted == 6 * 8 * 10
    network(images)
    assert collector.seen[0].pixels == counted
    assert not network.head._forward_pre_hooks


def test_predictions_alone_give_no_heads(images, network):
    found = collect_predictions(Prediction(network(images).detach()))
    assert found.heads == ()
    assert found.members[0].count.sum() == 6 * 16 * 20


def collect_predictions(*predictions):
    collector = StatisticsCollector(None)
    with collector.attached():
        for prediction in predictions:
            collector.update({}, prediction)
    return collector.statistics({"classes": ["a"]})


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        collect_predictions()
    single = Prediction(torch.randn(1, 4, 5, 6))
    pair = ensemble(torch.randn(2, 1, 4, 5, 6))
    with pytest.raises(ValueError, match="1 members over 4 classes are followed by one of 2 over"):
        collect_predictions(single, pair)
    assert collect_predictions(pair).manifest == {"classes": ["a"]}


@pytest.mark.gpu
def test_the_gpu_agrees(network, images):
    expected = collect(network, [images])
    found = collect(network.cuda(), [images.cuda()])
    assert found.members[0].count.sum() == expected.members[0].count.sum()
    torch.testing.assert_close(found.members[0].mean, expected.members[0].mean, rtol=1e-3, atol=0)
    assert found.heads[0].percentile(90) == pytest.approx(
        expected.heads[0].percentile(90), rel=1e-2
    )
