import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from tests.uncertainty.calibrators.samples import pixels, prediction
from uncertainty.calibrators import (
    ClusterTemperature,
    Temperature,
    TemperatureGrid,
    fit_clusters,
    fit_temperature_by_nll,
    search_temperature,
)
from uncertainty.calibrators.clustering import (
    COVARIANCE_FLOOR,
    KMeansClusters,
    fit_images,
    normalised,
)

GRID = TemperatureGrid(0.5, 6, 0.1)
IMAGES = 12


def features(images=IMAGES, length=4, seed=0):
    """Two plain groups of images: the even ones and the odd ones; not normalised."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(images) % 2
    rows = 0.1 * torch.rand(images, length, generator=generator)
    rows[torch.arange(images), group] = 1
    return rows * (1 + 9 * torch.rand(images, 1, generator=generator))


def sample(per_image=60, classes=5):
    """Pixels of all images; those of odd images are much more overconfident."""
    logits, labels = pixels(IMAGES * per_image, classes, scale=1.5)
    image = torch.arange(IMAGES).repeat_interleave(per_image)
    logits[image % 2 == 1] *= 3
    return logits, labels, image


def fit(**settings):
    logits, labels, image = sample()
    chosen = {"clusters": 2, "grid": GRID} | settings
    return fit_clusters(logits, labels, image, features(), **chosen)


@pytest.mark.parametrize("clustering", ["kmeans", "gmm"])
@pytest.mark.parametrize("assignment", ["hard", "soft"])
@pytest.mark.parametrize("members", [0, 2])
def test_one_cluster_is_plain_temperature_scaling(clustering, assignment, members):
    fitted = fit(clusters=1, clustering=clustering, assignment=assignment)
    logits, labels, _ = sample()
    value = search_temperature(logits, labels, GRID).temperature
    assert value not in (0.5, 1.0)
    before, images = prediction(members=members)
    ours, plain = fitted(before, images), Temperature(value, 5)(before, images)
    assert torch.equal(ours.logits, plain.logits)
    if members:
        assert torch.equal(ours.member_logits, plain.member_logits)


@pytest.mark.parametrize("objective", ["ece", "nll"])
def test_each_cluster_gets_the_temperature_of_its_own_pixels(objective):
    fitted = fit(objective=objective)
    logits, labels, image = sample()
    weights = fitted.clusters.weights(features())
    for parity in (0, 1):
        mine = image % 2 == parity
        if objective == "ece":
            expected = search_temperature(logits[mine], labels[mine], GRID).temperature
        else:
            expected = fit_temperature_by_nll(logits[mine], labels[mine]).temperature
        cluster = int(weights[parity].argmax())
        assert (weights.argmax(1)[parity::2] == cluster).all()
        assert float(fitted.temperatures[cluster]) == expected
    assert float(fitted.temperatures.max() / fitted.temperatures.min()) > 1.5


def test_hard_divides_by_the_cluster_of_the_image_and_soft_by_the_weighted_mean():
    soft, hard = fit(assignment="soft"), fit(assignment="hard")
    before, images = prediction(images=IMAGES)
    before = before._replace(features=features(seed=5))
    table = hard.temperatures[:, 0]
    assert torch.equal(table, soft.temperatures[:, 0])
    weights = hard.clusters.weights(before.features)
    picked = table[weights.argmax(1)].float().view(-1, 1, 1, 1)
    assert torch.equal(hard(before, images).logits, before.logits / picked)
    points = before.features / before.features.amax(1, keepdim=True)
    near = 1 / ((points[:, None].double() - soft.clusters.centres).norm(dim=2) + 1e-6)
    mean = (near / near.sum(1, keepdim=True)) @ table
    expected = before.logits / mean.view(-1, 1, 1, 1)
    assert torch.allclose(soft(before, images).logits, expected.float(), rtol=1e-6)


@pytest.mark.parametrize("clustering", ["kmeans", "gmm"])
def test_equal_temperatures_make_soft_and_hard_the_same(clustering):
    fitted = fit(clustering=clustering, assignment="soft", clusters=3)
    fitted.temperatures = torch.full_like(fitted.temperatures, 1.7)
    before, images = prediction()
    plain = Temperature(1.7, 5)(before, images).logits
    assert torch.allclose(fitted(before, images).logits, plain, rtol=1e-6)
    fitted.assignment = "hard"
    assert torch.equal(fitted(before, images).logits, plain)


@pytest.mark.parametrize("clustering", ["kmeans", "gmm"])
def test_weights_add_up_to_1(clustering):
    found = fit_images(features(), 3, clustering, seed=0)
    weights = found.weights(features(40, seed=3))
    assert weights.shape == (40, 3)
    assert torch.allclose(weights.sum(1), torch.ones(40, dtype=torch.float64))
    assert weights.min() >= 0


def test_a_feature_on_a_centre_belongs_to_it():
    centres = normalised(features(5, seed=2))
    weights = KMeansClusters(centres).weights(7 * centres.float())
    assert weights.diagonal().min() > 0.999


@pytest.mark.parametrize("clustering", ["kmeans", "gmm"])
def test_the_same_seed_gives_the_same_clusters(clustering):
    points = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    first, second = (fit_images(points, 4, clustering, seed=42) for _ in range(2))
    assert torch.equal(first.centres, second.centres)


def test_responsibilities_are_those_of_scikit_learn():
    points = torch.randn(60, 3, generator=torch.Generator().manual_seed(1)).abs() + 0.01
    points[30:, 0] += 4
    found = fit_images(points, 3, "gmm", seed=7)
    reference = GaussianMixture(
        3, n_init=5, max_iter=10_000, reg_covar=COVARIANCE_FLOOR, random_state=7
    ).fit(normalised(points).numpy())
    expected = reference.predict_proba(normalised(points).numpy())
    assert np.allclose(found.weights(points).numpy(), expected, atol=1e-10)
    assert np.ptp(expected, axis=0).max() > 1e-4


def test_scaling_the_features_of_an_image_changes_nothing():
    found = fit_images(features(), 2, "kmeans", seed=0)
    mean = found.weights(features())
    summed = found.weights(4096 * features())
    assert torch.equal(mean, summed)


def test_a_temperature_for_each_predicted_class():
    fitted = fit(per_class=True)
    logits, labels, image = sample()
    assert fitted.temperatures.shape == (2, 5)
    cluster = int(fitted.clusters.weights(features())[0].argmax())
    mine = (image % 2 == 0) & (logits.argmax(1) == 3)
    expected = search_temperature(logits[mine], labels[mine], GRID).temperature
    assert float(fitted.temperatures[cluster, 3]) == expected
    before, images = prediction(images=2)
    before = before._replace(features=features(2))
    after = fitted(before, images)
    assert torch.equal(after.logits.argmax(1), before.logits.argmax(1))
    of_pixel = fitted.temperatures[cluster][before.logits[0].argmax(0)].float()
    assert torch.equal(after.logits[0], before.logits[0] / of_pixel)


def test_classes_that_are_never_predicted_keep_temperature_1():
    logits, labels, image = sample()
    logits[:, 2] = -1000
    fitted = fit_clusters(logits, labels, image, features(), clusters=1, grid=GRID, per_class=True)
    assert float(fitted.temperatures[0, 2]) == 1
    assert (fitted.temperatures[0, [0, 1, 3, 4]] != 1).any()


def test_minus_one_is_a_cluster_for_each_image():
    assert len(fit(clusters=-1).temperatures) == IMAGES


def test_a_cluster_without_labelled_pixels_keeps_1(caplog):
    logits, labels, image = sample()
    labels = labels.masked_fill(image % 2 == 0, 255)
    fitted = fit_clusters(logits, labels, image, features(), clusters=2, grid=GRID)
    cluster = int(fitted.clusters.weights(features())[0].argmax())
    assert float(fitted.temperatures[cluster]) == 1
    assert "no labelled pixel" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": 13}, "13 clusters of 12 images; there must be at least one cluster and at"),
        ({"clusters": 0}, "0 clusters of 12 images"),
        ({"clustering": "dbscan"}, "the clustering 'dbscan' is unknown; there are kmeans, gmm"),
        ({"assignment": "fuzzy"}, "the assignment 'fuzzy' is unknown; there are hard, soft"),
        ({"objective": "brier"}, "the objective 'brier' is unknown; there are ece, nll"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(**settings)


def test_pixels_of_unknown_images_are_refused():
    logits, labels, image = sample()
    with pytest.raises(ValueError, match="pixels belong to image 5, but there are features of 5"):
        fit_clusters(logits, labels, image, features(5), clusters=2)
    with pytest.raises(ValueError, match="it must be given for each"):
        fit_clusters(logits, labels, image[1:], features(), clusters=2)


@pytest.mark.parametrize("greatest", [0.0, -2.0, float("nan")])
def test_an_image_without_a_positive_feature_is_named(greatest):
    rows = features()
    rows[3] = greatest
    with pytest.raises(ValueError, match=f"the greatest feature of image 3 is {greatest:g}"):
        fit_images(rows, 2, "kmeans", seed=0)


def test_features_of_another_network_are_refused():
    fitted = fit()
    before, images = prediction(features=7)
    with pytest.raises(ValueError, match="fitted on features of length 4, the network's have 7"):
        fitted(before, images)


def test_features_are_needed():
    assert ClusterTemperature.needs == {"features"}
    before, images = prediction()
    message = "the cluster calibrator needs features, the prediction has none"
    with pytest.raises(ValueError, match=message):
        fit()(before._replace(features=None), images)
