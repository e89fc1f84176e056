"""Networks with two heads: how their logits become one prediction, pass by pass."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn
from torch.nn import functional as F

from datasets.taxonomy import ClassMapping
from engine.evaluate import map_prediction, run_pass
from engine.fuse_heads import HeadFusion, fused_logits
from engine.monte_carlo import MonteCarloDropout
from engine.predict import Predictor
from metrics.calibration import Calibration
from metrics.segmentation import SegmentationMetrics
from metrics.selective import Misclassification
from uncertainty import build_score
from utils.types import HEADS, Prediction

CLASSES = ("road", "car", "sky", "tree")
NUM_CLASSES = len(CLASSES)
STRIDE = 4


class TwoHeads(nn.Module):
    """A main and an auxiliary head on features of a quarter of the size, or more such networks."""

    def __init__(self, members=0, *, aux=True, drop=0.0, align_corners=True):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 6, 5, stride=STRIDE, padding=2)
        self.drop = nn.Dropout2d(drop)
        self.main = nn.ModuleList(nn.Conv2d(6, NUM_CLASSES, 1) for _ in range(max(members, 1)))
        self.aux = nn.ModuleList(nn.Conv2d(6, NUM_CLASSES, 1) for _ in range(max(members, 1)))
        self.members = members
        self.has_aux = aux
        self.align_corners = align_corners

    def predict(self, images, needs=frozenset(), at_stride=False):
        features = self.drop(4 * self.body(images))
        size = features.shape[-2:] if at_stride else images.shape[-2:]
        main, aux = (
            torch.stack([resized(head(features), size, self.align_corners) for head in heads])
            for heads in (self.main, self.aux)
        )
        if not self.members:
            return Prediction(main[0], aux_logits=aux[0] if self.has_aux else None)
        return Prediction(
            main.softmax(2).mean(0).log(),
            member_logits=main,
            member_aux_logits=aux if self.has_aux else None,
        )


def resized(maps, size, align_corners):
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=align_corners)


def softmax(logits, axis=1):
    return special.softmax(logits.detach().double().numpy(), axis=axis)


@pytest.fixture
def images():
    return torch.randn(2, 3, 17, 21, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def heads():
    return torch.randn(2, 3, 2, NUM_CLASSES, 5, 6, generator=torch.Generator().manual_seed(2)) * 5


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_fused_logits_by_hand(heads, weight):
    main, aux = heads
    by_hand = main.numpy() + np.float32(weight) * aux.numpy()
    np.testing.assert_array_equal(fused_logits(main, aux, "logits", weight), by_hand)
    mean = (softmax(main, 2) + weight * softmax(aux, 2)) / (1 + weight)
    joint = fused_logits(main, aux, "probs", weight)
    np.testing.assert_allclose(joint.double().exp(), mean, atol=1e-6)
    torch.testing.assert_close(joint.logsumexp(2), torch.zeros(3, 2, 5, 6), atol=2e-6, rtol=0)
    assert fused_logits(main, aux, "main", weight) is main
    assert fused_logits(main, aux, "aux", weight) is aux


def test_equal_heads_fuse_to_themselves(heads):
    main = heads[0]
    torch.testing.assert_close(fused_logits(main, main, "probs").exp(), main.softmax(2))


@pytest.mark.parametrize("how", ["logits", "probs", "main", "aux"])
def test_a_network_with_two_heads_predicts_what_fuses_them(images, how):
    method = TwoHeads()
    plain = method.predict(images)
    expected = fused_logits(plain.logits, plain.aux_logits, how, 0.3)
    predict = Predictor(method, heads=HeadFusion(how, 0.3))
    found = predict(images)
    assert torch.equal(found.logits, expected)
    assert found.main_logits is found.aux_logits is None
    asked = predict(images, HEADS)
    assert torch.equal(asked.logits, expected)
    assert torch.equal(asked.main_logits, plain.logits)
    assert torch.equal(asked.aux_logits, plain.aux_logits)


def test_published_weight_is_the_default(images):
    plain = TwoHeads().predict(images)
    expected = plain.logits + 0.5 * plain.aux_logits
    torch.testing.assert_close(Predictor(TwoHeads())(images).logits, expected)


@pytest.mark.parametrize("how", ["logits", "probs", "main", "aux"])
@pytest.mark.parametrize("members", [0, 2])
def test_one_head_stays_bit_for_bit(images, how, members):
    method = TwoHeads(members, aux=False)
    plain = method.predict(images)
    found = Predictor(method, heads=HeadFusion(how, 2.0))(images, HEADS)
    for name, value in plain._asdict().items():
        other = getattr(found, name)
        assert other is None if value is None else torch.equal(other, value)


def test_members_are_fused_one_by_one(images):
    method = TwoHeads(members=3)
    plain = method.predict(images)
    found = Predictor(method)(images, HEADS)
    members = plain.member_logits + 0.5 * plain.member_aux_logits
    torch.testing.assert_close(found.member_logits, members)
    np.testing.assert_allclose(found.logits.exp().detach(), softmax(members, 2).mean(0), atol=1e-6)
    assert found.member_aux_logits is None
    for name, each in (("main", plain.member_logits), ("aux", plain.member_aux_logits)):
        mean = softmax(each, 2).mean(0)
        np.testing.assert_allclose(getattr(found, f"{name}_logits").exp().detach(), mean, atol=1e-6)


def test_samples_of_dropout_have_two_heads_each(images):
    method = TwoHeads(drop=0.5)
    found = Predictor(MonteCarloDropout(method, method, 3, seed=5), heads=HeadFusion("probs"))(
        images, HEADS
    )
    drawn = MonteCarloDropout(method, method, 3, seed=5).predict(images)
    main, aux = (softmax(each, 2) for each in (drawn.member_logits, drawn.member_aux_logits))
    assert main.shape == (3, 2, NUM_CLASSES, 17, 21)
    assert not np.allclose(aux[0], aux[1])
    np.testing.assert_allclose(
        found.logits.exp().detach(), ((main + aux / 2) / 1.5).mean(0), atol=1e-6
    )
    np.testing.assert_allclose(found.aux_logits.exp().detach(), aux.mean(0), atol=1e-6)


def test_windows_are_fused_too(images):
    method = TwoHeads()
    found = Predictor(method, window=(8, 8), overlap=0.5)(images, HEADS)
    torch.testing.assert_close(found.logits, found.main_logits + 0.5 * found.aux_logits)
    main = Predictor(method, window=(8, 8), overlap=0.5, heads=HeadFusion("main"))(images)
    torch.testing.assert_close(main.logits, found.main_logits)


def summed_probabilities(method, images, *, scales=(1.0,), how="logits"):
    """The published evaluation by hand: softmax at the heads' resolution, flipped back, resized."""
    total = 0
    for scale in scales:
        seen = images
        if scale != 1:
            inside = [round(scale * side) for side in images.shape[-2:]]
            seen = F.interpolate(images, size=inside, mode="bilinear", antialias=True)
        for mirrored in (False, True):
            plain = method.predict(seen.flip(-1) if mirrored else seen, at_stride=True)
            likely = fused_logits(plain.logits, plain.aux_logits, how).softmax(1)
            likely = likely.flip(-1) if mirrored else likely
            total = total + resized(likely, images.shape[-2:], method.align_corners)
    return total


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("how", ["logits", "probs"])
def test_probabilities_are_upsampled_and_passes_averaged_as_published(images, align_corners, how):
    method = TwoHeads(align_corners=align_corners)
    scales = (1.0, 1.25)
    predict = Predictor(
        method,
        flip=True,
        scales=scales,
        fuse="probs",
        heads=HeadFusion(how),
        upsample="probs",
        align_corners=align_corners,
    )
    found = predict(images).logits.exp()
    expected = summed_probabilities(method, images, scales=scales, how=how)
    assert expected.amax() <= 4
    torch.testing.assert_close(found, expected / 4)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 17, 21))


def test_upsampled_probabilities_differ_from_upsampled_logits(images):
    method = TwoHeads()
    likely = Predictor(method, upsample="probs", align_corners=True)(images).logits.exp()
    assert (likely - Predictor(method)(images).logits.softmax(1)).abs().max() > 0.02


@pytest.mark.parametrize("upsample", ["logits", "probs"])
@pytest.mark.parametrize("fuse", ["logits", "probs", "members"])
def test_a_mirrored_image_gives_the_mirrored_label_map(images, upsample, fuse):
    """On a network that is not equivariant itself, since its stride does not divide the width."""
    method = TwoHeads()
    predict = Predictor(
        method, flip=True, fuse=fuse, upsample=upsample, align_corners=True, scales=(1.0, 1.25)
    )
    straight, mirrored = predict(images).logits, predict(images.flip(-1)).logits.flip(-1)
    torch.testing.assert_close(straight, mirrored, rtol=1e-4, atol=1e-4)
    first, second = straight.softmax(1).topk(2, dim=1).values.unbind(1)
    sure = first - second > 1e-4
    assert sure.float().mean() > 0.9
    assert torch.equal(straight.argmax(1)[sure], mirrored.argmax(1)[sure])
    alone = Predictor(method, upsample=upsample, align_corners=True)
    assert (alone(images).logits - alone(images.flip(-1)).logits.flip(-1)).abs().max() > 1e-2


def test_probabilities_that_underflow_have_finite_logits():
    class Certain(nn.Module):
        def predict(self, images, needs=frozenset(), at_stride=False):
            logits = torch.full((1, NUM_CLASSES, 2, 2), -500.0)
            logits[:, 0] = 500
            return Prediction(logits, aux_logits=logits)

    found = Predictor(Certain(), upsample="probs")(torch.zeros(1, 3, 8, 8))
    assert found.logits.isfinite().all()
    assert build_score("entropy").function(found).abs().max() < 1e-6


def test_members_keep_their_probabilities(images):
    method = TwoHeads(members=2)
    found = Predictor(method, upsample="probs", align_corners=True)(images, HEADS)
    plain = method.predict(images, at_stride=True)
    each = (plain.member_logits + 0.5 * plain.member_aux_logits).softmax(2)
    size = images.shape[-2:]
    for member, likely in zip(found.member_logits, each, strict=True):
        torch.testing.assert_close(member.exp(), resized(likely, size, True))
    torch.testing.assert_close(found.logits.exp(), found.member_logits.exp().mean(0))
    mean = resized(plain.member_aux_logits.softmax(2).mean(0), size, True)
    torch.testing.assert_close(found.aux_logits.exp(), mean)


def test_windows_average_upsampled_probabilities(images):
    method = TwoHeads()
    predict = Predictor(method, window=(17, 13), overlap=0.3, upsample="probs", align_corners=True)
    total, covered = torch.zeros(2, NUM_CLASSES, 17, 21), torch.zeros(21)
    for left in (0, 8):
        crop = images[..., left : left + 13]
        plain = method.predict(crop, at_stride=True)
        likely = (plain.logits + 0.5 * plain.aux_logits).softmax(1)
        total[..., left : left + 13] += resized(likely, (17, 13), True)
        covered[left : left + 13] += 1
    torch.testing.assert_close(predict(images).logits.exp(), total / covered)


def test_a_window_larger_than_the_image_changes_nothing(images):
    common = {"upsample": "probs", "align_corners": True}
    whole = Predictor(TwoHeads(), **common)(images).logits
    assert torch.equal(Predictor(TwoHeads(), window=(99, 99), **common)(images).logits, whole)


@pytest.mark.parametrize("fuse", ["probs", "members"])
def test_disagreement_is_the_divergence_of_the_heads_by_scipy(images, fuse):
    method = TwoHeads()
    score = build_score("disagreement")
    found = score.function(Predictor(method, heads=HeadFusion("aux"))(images, score.needs))
    plain = method.predict(images)
    expected = stats.entropy(softmax(plain.logits), softmax(plain.aux_logits), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
    both = Predictor(method, flip=True, fuse=fuse)(images, score.needs)
    mirrored = method.predict(images.flip(-1))
    main, aux = (
        (softmax(one) + softmax(other.flip(-1))) / 2
        for one, other in (
            (plain.logits, mirrored.logits),
            (plain.aux_logits, mirrored.aux_logits),
        )
    )
    np.testing.assert_allclose(
        score.function(both), stats.entropy(main, aux, axis=1), atol=1e-5, rtol=1e-4
    )


def test_the_published_picture_orders_pixels_as_the_score(images):
    """log(1 + 10 KL), divided by its maximum, of the logits summed over plain and mirrored."""
    method = TwoHeads()
    score = build_score("disagreement")
    predict = Predictor(method, flip=True, fuse="logits")
    values = score.function(predict(images, score.needs))
    plain, mirrored = method.predict(images), method.predict(images.flip(-1))
    main = (plain.logits + mirrored.logits.flip(-1)) / 2
    aux = (plain.aux_logits + mirrored.aux_logits.flip(-1)) / 2
    divergence = stats.entropy(softmax(main), softmax(aux), axis=1)
    picture = np.log1p(10 * divergence)
    picture /= picture.max((1, 2), keepdims=True)
    for ours, theirs in zip(values, picture, strict=True):
        assert stats.spearmanr(ours.flatten(), theirs.flatten()).statistic > 0.999999


class Reader:
    """A consumer of both heads."""

    variant = None
    needs = HEADS

    def __init__(self):
        self.seen = []

    def update(self, batch, prediction):
        self.seen.append(prediction)

    def all_reduce(self):
        """Nothing is added up."""

    def compute(self):
        return {}


def batch_of(images):
    label = torch.randint(
        0, NUM_CLASSES, (2, 34, 42), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    label[:, :3] = 255
    return {"image": images, "label": label, "id": ["a", "b"]}


def test_reliability_is_measured_on_the_fused_heads(images):
    """At the label's size, with and without the score of both heads, in one pass."""
    method = TwoHeads()
    score = build_score("disagreement")
    metrics = [
        SegmentationMetrics(CLASSES),
        Calibration(CLASSES),
        Misclassification(CLASSES, scores=[score, build_score("entropy")]),
    ]
    reader = Reader()
    batch = batch_of(images)
    results = run_pass(
        Predictor(method, flip=True, fuse="probs"),
        method,
        [batch],
        [*metrics, reader],
        prepare=lambda each: each,
    )["total"]
    (prediction,) = reader.seen
    for maps in (prediction.logits, prediction.main_logits, prediction.aux_logits):
        assert maps.shape == (2, NUM_CLASSES, 34, 42)
    alone = SegmentationMetrics(CLASSES)
    alone.update(batch, Prediction(prediction.logits))
    assert results["miou"] == alone.compute()["total"]["miou"]
    ranked = results["misclassification"]
    assert 0 < ranked["disagreement"]["auroc"] < 100
    assert ranked["disagreement"]["auroc"] != ranked["entropy"]["auroc"]
    assert results["calibration"]["pixels"] == 2 * 31 * 42


def test_one_head_has_no_disagreement(images):
    method = TwoHeads(aux=False)
    metric = Misclassification(CLASSES, scores=[build_score("disagreement")])
    with pytest.raises(ValueError, match="needs aux_logits, which this model does not give"):
        run_pass(Predictor(method), method, [batch_of(images)], [metric], prepare=lambda each: each)


def test_classes_are_merged_in_both_heads(images):
    found = Predictor(TwoHeads())(images, HEADS)
    mapping = ClassMapping(("a", "b"), (0, 0, 1, 1), (0, 1))
    merged = map_prediction(found, mapping)
    for name in ("logits", "main_logits", "aux_logits"):
        likely = getattr(found, name).softmax(1)
        pairs = torch.stack([likely[:, :2].sum(1), likely[:, 2:].sum(1)], 1)
        torch.testing.assert_close(getattr(merged, name).softmax(1), pairs)


def test_a_mapping_of_labels_alone_leaves_the_prediction_as_it_is(images):
    found = Predictor(TwoHeads())(images)
    assert map_prediction(found, ClassMapping(CLASSES, (0, 1, 2, 3), (0, 1, 255, 3))) is found
