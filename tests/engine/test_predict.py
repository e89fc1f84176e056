import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.predict import Predictor, fitting, fitting_sides, starts
from uncertainty import build_score
from utils.types import FEATURES, Prediction

NUM_CLASSES = 4


class Pointwise(nn.Module):
    """Logits, members, temperatures and features from 1x1 convolutions."""

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
            features=images.mean((2, 3)) if FEATURES in needs else None,
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
        (896, 512, 0.0625, [0, 384]),  # a stride of 480, as URN's probabilities are made
        (1194, 512, 0.0625, [0, 480, 682]),
        (1472, 512, 0.0625, [0, 480, 960]),
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


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_that_holds_the_image_is_the_whole_image_bit_for_bit(images, flip):
    common = {"flip": flip, "scales": (0.5, 1.0), "fuse": "probs", "short_side": 9}
    whole = Predictor(Wide(), **common)(images).logits
    for window in ((9, 12), (64, 12), (512, 512)):
        assert torch.equal(Predictor(Wide(), window=window, **common)(images).logits, whole)
    assert not torch.equal(Predictor(Wide(), window=(8, 512), **common)(images).logits, whole)


def test_a_symmetric_image_is_labelled_symmetrically():
    """By the mean over it and its mirror image, though the network is not symmetric."""
    half = torch.randn(1, 3, 12, 10, generator=torch.Generator().manual_seed(3))
    image = torch.cat([half, half.flip(-1)], 3)
    found = Predictor(Wide(), flip=True, fuse="probs", window=(8, 8), overlap=0.25)(image).logits
    torch.testing.assert_close(found, found.flip(-1))
    alone = Predictor(Wide(), window=(8, 8), overlap=0.25)(image).logits
    assert (alone - alone.flip(-1)).abs().max() > 0.1


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
        assert_same(found, expected, but=("logits", "member_logits"))
        for name in ("logits", *(["member_logits"] if members else [])):
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


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((375, 500), 512, (512, 683)),  # 682.67
        ((500, 375), 512, (683, 512)),
        ((375, 500), 256, (256, 341)),
        ((375, 500), 896.0, (896, 1195)),  # 1194.67
        ((100, 1000), 512, (205, 2048)),  # the long side is the limit
        ((1000, 100), 512, (2048, 205)),
        ((333, 500), 512 * 1.25, (640, 961)),
        ((4, 7), 2.9, (2, 4)),  # limits are whole numbers; 3.5 is rounded up
        ((2, 900), 2, (1, 8)),
    ],
)
def test_the_short_and_the_long_side_are_limited_whatever_the_orientation(size, short, expected):
    assert fitting_sides(size, short) == expected


def test_the_short_side_takes_the_scale_of_the_pass(images):
    """Not the rounded size: 17/13 * 8 * 1.5 = 15.69, but 1.5 times the rounded 10 is 15."""
    method = Pointwise()
    found = Predictor(method, short_side=8, scales=(1.0, 1.5))(images)
    assert [size[2:] for size in method.sizes] == [(8, 10), (12, 16)]
    passes = [scaled(Pointwise(), images, size) for size in ((8, 10), (12, 16))]
    torch.testing.assert_close(found.logits, sum(passes) / 2)


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


class Tempered(nn.Module):
    """Members with a 3x3 convolution each, whose logits are divided by its own temperature."""

    def __init__(self, members=0):
        super().__init__()
        torch.manual_seed(0)
        self.members = members
        self.layers = nn.ModuleList(
            nn.Conv2d(3, NUM_CLASSES + 1, 3, padding=1) for _ in range(max(members, 1))
        )

    def of_each(self, images):
        """Tempered logits and temperatures of each member."""
        for layer in self.layers:
            maps = layer(images)
            temperature = maps[:, :1].sigmoid() + 1e-3
            yield maps[:, 1:] / temperature, temperature

    def predict(self, images, needs=frozenset()):
        logits, temperatures = map(torch.stack, zip(*self.of_each(images), strict=True))
        features = images.mean((2, 3)) if FEATURES in needs else None
        if not self.members:
            return Prediction(logits[0], temperature=temperatures[0], features=features)
        return Prediction(
            logits.softmax(2).mean(0).log(),
            member_logits=logits,
            temperature=temperatures.mean(0),
            member_temperatures=temperatures,
            features=features,
        )


def by_hand(method, images, scales=(1.0,), *, mirrored=True):
    """Logits and temperatures of every member in every pass, at the images' size."""
    size = images.shape[-2:]
    for scale in scales:
        seen = images
        if scale != 1:
            inside = [round(scale * side) for side in size]
            seen = F.interpolate(images, size=inside, mode="bilinear", antialias=True)
        for flipped in (False, True) if mirrored else (False,):
            for maps in method.of_each(seen.flip(-1) if flipped else seen):
                back = [each.flip(-1) if flipped else each for each in maps]
                yield [
                    F.interpolate(each, size=size, mode="bilinear", align_corners=False)
                    for each in back
                ]


@pytest.mark.parametrize("members", [0, 3])
def test_one_pass_as_members_is_the_method_bit_for_bit(images, members):
    method = Tempered(members)
    needs = frozenset({FEATURES})
    found = Predictor(method, fuse="members")(images, needs)
    assert_same(found, method.predict(images, needs), rtol=0, atol=0)


def test_passes_as_members_are_the_passes_in_their_order(images):
    method = Tempered()
    scales = (0.5, 1.0, 1.5)
    found = Predictor(method, fuse="members", flip=True, scales=scales)(images)
    logits, temperatures = map(torch.stack, zip(*by_hand(method, images, scales), strict=True))
    assert found.member_logits.shape == (6, 2, NUM_CLASSES, 13, 17)
    assert found.member_temperatures.shape == (6, 2, 1, 13, 17)
    torch.testing.assert_close(found.member_logits, logits)
    torch.testing.assert_close(found.member_temperatures, temperatures)
    torch.testing.assert_close(found.temperature, temperatures.mean(0))
    torch.testing.assert_close(found.logits, logits.softmax(2).mean(0).log())
    torch.testing.assert_close(found.logits.logsumexp(1), torch.zeros(2, 13, 17))


@pytest.mark.parametrize("score", ["abet", "energy", "godin", "msp", "entropy@mean_score"])
def test_a_score_of_passes_as_members_is_that_of_the_passes_by_hand(images, score):
    """The mean of the passes' scores; of msp, that of their mean softmax."""
    method = Tempered()
    found = build_score(score).function(Predictor(method, fuse="members", flip=True)(images))
    passes = list(by_hand(method, images))
    each = {
        "abet": [-logits.logsumexp(1) for logits, _ in passes],
        "energy": [-t[:, 0] * logits.logsumexp(1) for logits, t in passes],
        "godin": [t[:, 0] for _, t in passes],
        "msp": [1 - sum(logits.softmax(1) for logits, _ in passes).div(2).amax(1)] * 2,
        "entropy@mean_score": [
            torch.distributions.Categorical(logits=logits.movedim(1, -1)).entropy()
            for logits, _ in passes
        ],
    }[score]
    torch.testing.assert_close(found, sum(each) / 2)


def test_all_members_of_all_passes_are_members(images):
    method = Tempered(members=3)
    needs = frozenset({FEATURES})
    found = Predictor(method, fuse="members", flip=True, scales=(1.0, 2.0))(images, needs)
    logits, temperatures = map(torch.stack, zip(*by_hand(method, images, (1.0, 2.0)), strict=True))
    for ours, theirs in ((found.member_logits, logits), (found.member_temperatures, temperatures)):
        assert ours.shape[0] == 3 * 2 * 2
        torch.testing.assert_close(ours.sort(0).values, theirs.sort(0).values)
    torch.testing.assert_close(found.logits, logits.softmax(2).mean(0).log())
    torch.testing.assert_close(found.temperature, temperatures.mean(0))
    torch.testing.assert_close(found.features, images.mean((2, 3)), rtol=1e-4, atol=1e-3)


def test_windows_and_members_go_together(images):
    """Windows are averaged inside a pass, and only the passes are members."""
    method = Tempered()
    found = Predictor(method, fuse="members", flip=True, window=(13, 9), overlap=0)(images)
    single = Predictor(method, window=(13, 9), overlap=0)
    passes = torch.stack([single(images).logits, single(images.flip(-1)).logits.flip(-1)])
    torch.testing.assert_close(found.member_logits, passes)
    torch.testing.assert_close(found.logits, passes.softmax(2).mean(0).log())


def test_a_network_without_temperature_has_none_as_members(images):
    found = Predictor(Wide(), fuse="members", flip=True)(images)
    assert found.temperature is None
    assert found.member_temperatures is None
    assert len(found.member_logits) == 2


class TwoMembers:
    """The first member sees the mean of an image, the second its left edge."""

    def predict(self, images, needs=frozenset(), at_stride=False):
        first, second = images[:, :2], images[:, :2, :, :1].expand(-1, -1, -1, images.shape[-1])
        members = torch.stack([first, second])
        return Prediction(members.softmax(2).mean(0).log(), member_logits=members)


def test_members_of_passes_come_member_by_member():
    images = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    found = Predictor(TwoMembers(), flip=True, fuse="members")(images).member_logits
    straight, mirrored = TwoMembers().predict(images), TwoMembers().predict(images.flip(-1))
    for own, index in zip(found.unflatten(0, (2, -1)), (0, 1), strict=True):
        assert torch.equal(own[0], straight.member_logits[index])
        assert torch.equal(own[1], mirrored.member_logits[index].flip(-1))
