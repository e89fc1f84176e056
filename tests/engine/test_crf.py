"""A dense CRF on predictions equals the CRF on their probabilities, image by image."""

import pytest
import torch

from datasets.transforms import normalize
from engine.crf import RefinedByCrf
from uncertainty.dense_crf import RESPONSE_CRF, DenseCRF, unary_of
from utils.types import Prediction


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 12, 16), generator=generator, dtype=torch.uint8)


@pytest.fixture
def predicted():
    logits = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(1))
    members = torch.stack([logits, logits])
    return Prediction(logits, member_logits=members, features=torch.ones(2, 5))


def test_every_image_has_the_marginals_of_its_own_crf(pictures, predicted):
    refined = RefinedByCrf(lambda images, needs: predicted, RESPONSE_CRF)(normalize(pictures))
    for index, picture in enumerate(pictures):
        probabilities = predicted.logits[index].softmax(0)
        expected = DenseCRF(picture, RESPONSE_CRF)(unary_of(probabilities[None]))[0]
        torch.testing.assert_close(refined.logits[index].softmax(0), expected)
    assert not torch.allclose(refined.logits.softmax(1), predicted.logits.softmax(1), atol=1e-3)


def test_only_the_distribution_and_the_features_are_left(pictures, predicted):
    refined = RefinedByCrf(lambda images, needs: predicted, RESPONSE_CRF)(normalize(pictures))
    assert refined.member_logits is None
    assert refined.features is predicted.features
    assert refined.logits.isfinite().all()


def test_without_iterations_nothing_changes_but_rounding(pictures, predicted):
    settings = RESPONSE_CRF._replace(iterations=0)
    refined = RefinedByCrf(lambda images, needs: predicted, settings)(normalize(pictures))
    torch.testing.assert_close(refined.logits.softmax(1), predicted.logits.softmax(1))
