import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.predict import Predictor, fitting, starts
from utils.types import FEATURES, Prediction

NUM_CLASSES = 4


class Pointwise(nn.Module):
    """Logits, auxiliary logits, members, temperatures and features from 1x1 convolutions."""

    def __init__(self, members=0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3, NUM_CLASSES, 1) for _ in range(max(members, 1)))
        self.members = members
        self.sizes = []

    def predict(self, images, needs=frozenset()):
        self.sizes.append(tuple(images.shape))
        logits = [layer(images) for layer in self.layers]
        stacked = torch.stack(logits)
        mean = stacked.softmax(2).mean(0).log()
        return Prediction(
            mean if self.members else logits[0],
            stacked if self.members else None,
            logits[0][:, :1].exp(),
            stacked[:, :, :1].exp() if self.members else None,
            2 * logits[0],
            images.mean((2, 3)) if FEATURES in needs else None,
        )


class Wide(nn.Module):
    """A 3x3 convolution, which sees the border of a window."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, NUM_CLASSES, 3, padding=1)

    def predict(self, images, needs=frozenset()):
        return Prediction(self.layer(images))


@pytest.fixture
def images():
    return torch.randn(2, 3, 13, 17, generator=torch.Generator().manual_seed(1))


def assert_same(found, expected, *, but=(), **tolerance):
    for name in set(Prediction._fields) - set(but):
        if getattr(expected, name) is None:
            assert getattr(found, name) is None
        else:
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerance)


@pytest.mark.parametrize("fuse", ["logits", "probs"])
@pytest.mark.parametrize("members", [0, 3])
def test_with_nothing_on_it_is_the_method_bit_for_bit(images, fuse, members):
    method = Pointwise(members)
    needs = frozenset({FEATURES})
    expected = method.predict(images, needs)
    assert_same(Predictor(method, fuse=fuse)(images, needs), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("length", "window", "overlap", "expected"),
    [
        (10, 10, 1 / 3, [0]),
        (11, 10, 1 / 3, [0, 1]),
        (2048, 769, 1 / 3, [0, 513, 1026, 1279]),
        (2048, 1024, 0.25, [0, 768, 1024]),
        (12, 4, 0, [0, 4, 8]),
        (5, 1, 0.9, [0, 1, 2, 3, 4]),
    ],
)
def test_where_windows_start(length, window, overlap, expected):
    assert starts(length, window, overlap) == expected


@pytest.mark.parametrize("window", [(5, 6), (13, 4), (4, 17), (20, 5), (1, 1)])
@pytest.mark.parametrize("members", [0, 3])
def test_windows_of_a_pointwise_network_give_the_whole(images, window, members):
    method = Pointwise(members)
    expected = method.predict(images)
    assert_same(Predictor(method, window=window, overlap=0.5)(images), expected)


def test_overlapping_windows_average_raw_logits(images):
    method = Wide()
    found = Predictor(method, window=(13, 10), overlap=0.5)(images).logits
    total, covered = torch.zeros(2, NUM_CLASSES, 13, 17), torch.zeros(17)
    for left in (0, 5, 7):  # the last window is shifted back inside
        total[..., left : left + 10] += method.predict(images[..., left : left + 10]).logits
        covered[left : left + 10] += 1
    assert covered.max() == 3
    torch.testing.assert_close(found, total / covered)


def test_an_image_within_the_window_is_seen_whole(images):
    method = Pointwise()
    Predictor(method, window=(64, 64))(images)
    Predictor(method, window=(64, 9), overlap=0)(images)
    assert method.sizes[0] == (2, 3, 13, 17)
    assert {size[2:] for size in method.sizes[1:]} == {(13, 9)}


def test_windows_are_batched_within_half_the_pixels(images):
    method = Pointwise()
    Predictor(method, window=(4, 5), overlap=0)(images)
    counts = [size[0] for size in method.sizes]
    assert sum(counts) == 2 * 4 * 4  # images x rows x columns
    assert max(counts) == 2 * (13 * 17 // (2 * 4 * 5))


def test_features_are_averaged_over_windows(images):
    method = Pointwise()
    found = Predictor(method, window=(13, 9), overlap=0)(images, frozenset({FEATURES})).features
    left, right = images[..., :9].mean((2, 3)), images[..., 8:].mean((2, 3))
    torch.testing.assert_close(found, (left + right) / 2)


@pytest.mark.parametrize("fuse", ["logits", "probs"])
@pytest.mark.parametrize("members", [0, 3])
def test_mirroring_changes_nothing_for_an_equivariant_network(images, fuse, members):
    method = Pointwise(members)
    needs = frozenset({FEATURES})
    expected = method.predict(images, needs)
    found = Predictor(method, flip=True, fuse=fuse)(images, needs)
    if fuse == "probs":  # softmax says nothing about the logits' offset
        assert_same(found, expected, but=("logits", "member_logits", "aux_logits"))
        for name in ("logits", "aux_logits", *(["member_logits"] if members else [])):
            fused, alone = getattr(found, name), getattr(expected, name)
            torch.testing.assert_close(fused.softmax(-3), alone.softmax(-3))
    else:
        assert_same(found, expected)


def test_mirrored_logits_are_mirrored_back(images):
    method = Wide()
    mirrored = method.predict(images.flip(-1)).logits.flip(-1)
    expected = (method.predict(images).logits + mirrored) / 2
    torch.testing.assert_close(Predictor(method, flip=True)(images).logits, expected)


def scaled(method, images, size):
    """Logits at the images' size from a pass at another."""
    seen = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    logits = method.predict(seen).logits
    return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("fuse", ["logits", "probs"])
def test_scales_are_fused_as_asked(images, fuse):
    method = Wide()
    found = Predictor(method, scales=(0.5, 1.0, 2.0), fuse=fuse)(images).logits
    passes = torch.stack(
        [
            scaled(method, images, (6, 8)),
            method.predict(images).logits,
            scaled(method, images, (26, 34)),
        ]
    )
    if fuse == "logits":
        torch.testing.assert_close(found, passes.mean(0))
    else:
        torch.testing.assert_close(found, passes.softmax(2).mean(0).log())


def test_a_constant_image_is_the_same_at_every_scale():
    images = torch.tensor([0.3, -1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, 9, 11)
    method = Pointwise()
    found = Predictor(method, scales=(0.5, 1.5), flip=True)(images)
    assert_same(found, method.predict(images))
    assert len(method.sizes) == 5


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((720, 1280), (1024, 2048), (1024, 1820)),  # IDD in the box of Cityscapes: enlarged
        ((1024, 2048), (1024, 2048), (1024, 2048)),
        ((13, 17), (6, 100), (6, 8)),
    ],
)
def test_the_largest_size_that_fits_into_a_box(size, box, expected):
    assert fitting(size, box) == expected


def test_infer_size_may_depend_on_the_images(images):
    method = Pointwise()
    found = Predictor(method, infer_size=lambda size: fitting(size, (6, 100)))(images)
    assert method.sizes == [(2, 3, 6, 8)]
    assert_same(found, Predictor(Pointwise(), infer_size=(6, 8))(images))


def test_infer_size_is_what_the_network_sees(images):
    method = Pointwise()
    found = Predictor(method, infer_size=(6, 9))(images).logits
    assert method.sizes == [(2, 3, 6, 9)]
    torch.testing.assert_close(found, scaled(method, images, (6, 9)))


@pytest.mark.parametrize("fuse", ["logits", "probs"])
def test_ensemble_logits_are_the_log_of_the_mean_softmax_of_the_members(images, fuse):
    predictor = Predictor(
        Pointwise(members=3),
        infer_size=(8, 8),
        window=(6, 6),
        flip=True,
        scales=(1, 1.5),
        fuse=fuse,
    )
    found = predictor(images)
    expected = found.member_logits.softmax(2).mean(0).log()
    torch.testing.assert_close(found.logits, expected)
    torch.testing.assert_close(found.logits.logsumexp(1), torch.zeros(2, 13, 17))


def test_autocast_on_request_gives_float32(images):
    method = Wide()
    exact = method.predict(images).logits
    assert torch.equal(Predictor(method)(images).logits, exact)
    low = Predictor(method, amp="bf16")(images).logits
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)
    torch.testing.assert_close(low, exact, rtol=0.05, atol=0.05)
