import math
import pickle
from itertools import pairwise, product

import numpy as np
import pytest
import torch

import uncertainty.response_decoders as module
from tests.uncertainty.test_response_scaling import random_image, random_probabilities
from uncertainty import dense_crf
from uncertainty.dense_crf import CrfSettings, DenseCRF, unary_of
from uncertainty.local_affinity import AffinitySettings, LocalAffinity
from uncertainty.response_decoders import DECODERS, affinity_decoder, argmax_decoder, crf_decoder
from uncertainty.response_scaling import ResponseScaling
from uncertainty.response_variance import PRESETS

VOC = PRESETS["voc"]
CRF = CrfSettings(iterations=3)
OF_IMAGES = ("crf", "affinity")  # argmax is in test_response_scaling.py
AFFINITY = AffinitySettings(distances=(1, 2, 4), iterations=4)


class FactorsOnly:
    """A CRF without neighbours, which notes what it is asked."""

    calls = 0
    unaries = ()

    def __init__(self, image, settings):
        type(self).calls += 1
        type(self).unaries = ()
        self.image, self.settings = image, settings

    def __call__(self, unary):
        type(self).unaries = (*type(self).unaries, unary.clone())
        return (-unary).softmax(1)


@pytest.fixture
def factors_only(monkeypatch):
    FactorsOnly.calls = 0
    monkeypatch.setattr(module, "DenseCRF", FactorsOnly)
    return FactorsOnly


def test_a_crf_without_neighbours_is_the_argmax_decoder(factors_only):
    probabilities = random_probabilities(5, spread=1.0)
    image = random_image()
    found = ResponseScaling(VOC, crf_decoder(CRF))(probabilities, image)
    expected = ResponseScaling(VOC, argmax_decoder)(probabilities)
    assert torch.equal(found.label, expected.label)
    assert torch.equal(found.uncertainty, expected.uncertainty)
    assert factors_only.calls == 1


def test_unaries_of_the_scaled_class(factors_only):
    probabilities = random_probabilities(3, spread=3.0)
    ResponseScaling(VOC, crf_decoder(CRF))(probabilities, random_image())
    plain, altered = factors_only.unaries[0][0], torch.cat(factors_only.unaries[1:])
    assert altered.shape == (18, 3, 23, 31)
    heights = -probabilities.double().log()
    limit = -math.log(1e-5)
    torch.testing.assert_close(plain.double(), heights.clamp(max=limit), atol=1e-5, rtol=1e-5)
    for unary, (index, scale) in zip(altered, product(range(3), VOC), strict=True):
        expected = heights.clamp(max=limit)
        expected[index] = (scale * heights[index]).clamp(max=limit)
        torch.testing.assert_close(unary.double(), expected, atol=1e-5, rtol=1e-5)
    assert (altered == altered.max()).any()


def test_altered_unaries_in_parts(factors_only, monkeypatch):
    probabilities, image = random_probabilities(5, spread=1.0), random_image()
    whole = ResponseScaling(VOC, crf_decoder(CRF))(probabilities, image)
    assert len(factors_only.unaries) == 2
    monkeypatch.setattr(module, "CRF_VALUES", 4 * probabilities.numel())
    parts = ResponseScaling(VOC, crf_decoder(CRF))(probabilities, image)
    assert [len(unary) for unary in factors_only.unaries] == [1, *[4] * 7, 2]
    assert torch.equal(parts.uncertainty, whole.uncertainty)


@pytest.fixture
def smooth():
    """An object that is redder than its background, and probabilities that miss its border."""
    y, x = torch.meshgrid(torch.arange(24), torch.arange(28), indexing="ij")
    inside = (y - 12) ** 2 + (x - 14) ** 2 < 60
    image = torch.full((3, 24, 28), 90, dtype=torch.uint8)
    image[0][inside] = 200
    distance = ((y - 11).float() ** 2 + (x - 12).float() ** 2).sqrt()
    logit = (6 - distance) * 0.8
    return image, torch.stack([-logit, logit]).softmax(0)


def by_crf(image):
    crf = DenseCRF(image, CRF)
    return lambda probabilities: crf(unary_of(probabilities)[None])[0].argmax(0).byte()


def by_affinity(image):
    affinity = LocalAffinity(image, AFFINITY)
    return lambda probabilities: affinity(probabilities).argmax(0).byte()


@pytest.mark.parametrize(
    ("decoder", "literal"),
    [(crf_decoder(CRF), by_crf), (affinity_decoder(AFFINITY), by_affinity)],
)
def test_every_altered_map_is_decoded(decoder, literal, smooth):
    image, probabilities = smooth
    decode = literal(image)
    found = ResponseScaling(VOC, decoder)(probabilities, image)
    assert torch.equal(found.label, decode(probabilities))
    inside = np.zeros((2, 6, 24, 28))
    for index, (place, scale) in product(range(2), enumerate(VOC)):
        altered = probabilities.clone()
        altered[index] **= scale
        inside[index, place] = decode(altered) == index
    variance = inside.var(axis=1).max(0)
    values = (variance - variance.min()) / (variance.max() - variance.min() + 1e-6)
    np.testing.assert_allclose(found.uncertainty, values, atol=1e-6)
    assert 0 < (found.uncertainty > 0.9).float().mean() < 0.5
    plain = ResponseScaling(VOC, argmax_decoder)(probabilities)
    assert not torch.equal(found.label, plain.label)


def test_one_set_of_kernels_serves_every_altered_map(smooth, monkeypatch):
    image, probabilities = smooth
    built, build = [], dense_crf.build_lattice
    monkeypatch.setattr(dense_crf, "build_lattice", lambda f: built.append(1) or build(f))
    ResponseScaling(VOC, crf_decoder(CRF))(probabilities, image)
    assert len(built) == 2  # of places, of places and colours


@pytest.mark.parametrize("decoder", [crf_decoder(CRF), affinity_decoder(AFFINITY)])
def test_scaling_can_be_sent_to_another_process(decoder, smooth):
    image, probabilities = smooth
    scaling = ResponseScaling(VOC, decoder, "mean", "absolute")
    copy = pickle.loads(pickle.dumps(scaling))
    assert torch.equal(
        copy(probabilities, image).uncertainty, scaling(probabilities, image).uncertainty
    )


def test_affinities_without_iterations_are_the_argmax_decoder():
    probabilities, image = random_probabilities(5, spread=1.0), random_image()
    still = AFFINITY._replace(iterations=0)
    found = ResponseScaling(VOC, affinity_decoder(still))(probabilities, image)
    expected = ResponseScaling(VOC, argmax_decoder)(probabilities)
    assert torch.equal(found.label, expected.label)
    assert torch.equal(found.uncertainty, expected.uncertainty)


def test_a_greater_scale_takes_no_pixel_after_affinities():
    probabilities, image = random_probabilities(4, spread=1.0), random_image()
    decoding = affinity_decoder(AFFINITY)(image)
    taken = [decoding.wins(probabilities, (scale,)).bool() for scale in (0.2, 0.6, 1, 2, 5)]
    for wide, narrow in pairwise(taken):
        assert (wide | ~narrow).all()
        assert (wide & ~narrow).any()


def test_classes_that_affinities_leave_out_are_nowhere_the_most_likely():
    probabilities, image = random_probabilities(6, spread=2.0), random_image()
    probabilities[[1, 4]] *= 1e-4
    probabilities /= probabilities.sum(0)
    refined = []

    class Noted(LocalAffinity):
        def __call__(self, maps):
            refined.append(len(maps))
            return super().__call__(maps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LocalAffinity", Noted)
        label = affinity_decoder(AFFINITY)(image).labels(probabilities)
    assert refined == [4]
    assert torch.equal(label, LocalAffinity(image, AFFINITY)(probabilities).argmax(0).byte())


@pytest.mark.parametrize("name", OF_IMAGES)
def test_scales_of_1_change_nothing(name, smooth):
    image, probabilities = smooth
    found = ResponseScaling((1.0, 1.0), DECODERS[name].decoder)(probabilities, image)
    assert (found.uncertainty == 0).all()


@pytest.mark.parametrize("name", OF_IMAGES)
def test_the_order_of_classes_and_scales_does_not_matter(name):
    probabilities, image = random_probabilities(4, spread=1.0), random_image()
    found = ResponseScaling(VOC, DECODERS[name].decoder)(probabilities, image)
    turned = ResponseScaling(VOC[::-1], DECODERS[name].decoder)(probabilities.flip(0), image)
    assert torch.equal(turned.label, 3 - found.label)
    assert torch.equal(turned.uncertainty, found.uncertainty)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_an_image_of_a_single_class_is_certain(name):
    likely = random_probabilities(3) * 0.1
    likely[1] = 1 - likely[0] - likely[2]
    found = ResponseScaling(VOC, DECODERS[name].decoder)(likely, random_image())
    assert (found.label == 1).all()
    assert (found.uncertainty == 0).all()


@pytest.mark.parametrize(("name", "words"), [("crf", "CRF"), ("affinity", "affinity")])
def test_decoders_that_need_an_image_say_so(name, words):
    with pytest.raises(ValueError, match=f"the {words} decoder reads the colours of the image"):
        ResponseScaling(VOC, DECODERS[name].decoder)(random_probabilities())


@pytest.mark.gpu
@pytest.mark.parametrize("name", OF_IMAGES)
def test_decoding_on_a_gpu_is_that_on_the_cpu_but_for_single_pixels(name):
    probabilities, image = random_probabilities(4, spread=1.0), random_image()
    found = []
    for device in ("cpu", "cuda"):
        decoding = DECODERS[name].decoder(image.to(device))
        likely = probabilities.to(device)
        found.append((decoding.labels(likely), decoding.wins(likely, VOC)))
    for ours, theirs in zip(*found, strict=True):
        assert theirs.is_cuda
        assert theirs.dtype == ours.dtype
        assert (theirs.cpu() != ours).float().mean() < 0.01  # sums differ in their last bits
