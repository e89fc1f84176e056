import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datasets.multi_crop import MULTI_CROP_SCALES, crop_boxes
from datasets.transforms import denormalize
from engine.cam_inference import (
    MULTI_SCALES,
    CamPredictor,
    MultiCrop,
    MultiScale,
    RefinedMaps,
    between_limits,
    foreground_ids,
)
from network.cam import CamOutput
from tests.network.cam_toy import cam_network
from uncertainty.dense_crf import HEAT_MAP_CRF
from uncertainty.pseudo_masks import heat_maps

CLASSES = 6


class FakeNetwork:
    """Maps that follow from the image at a quarter of its size; counts what it sees."""

    align_corners = True

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(CLASSES, 3, 3, 3, generator=generator)
        self.seen = []

    def maps(self, images, size=None):
        assert size is None, "maps are enlarged after the choice of classes"
        self.seen.append(tuple(images.shape))
        features = F.avg_pool2d(images, 4, ceil_mode=True, count_include_pad=False)
        raw = F.conv2d(features, self.weight.to(images.dtype), padding=1)
        return CamOutput(raw, raw.sigmoid())


def images_of(count=2, size=(32, 40), seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 10, generator=generator)
    return F.interpolate(coarse, size, mode="bicubic")


def labels_of(*classes):
    labels = torch.zeros(len(classes), CLASSES)
    for row, ids in zip(labels, classes, strict=True):
        row[list(ids)] = 1
    return labels


def predicted(inference, images, labels, network=None, **options):
    """Maps (N, K, H, W) of a batch, as a consumer gets them."""
    predictor = CamPredictor(RefinedMaps(network or FakeNetwork()), inference, 0, **options)
    return predictor.of_batch({"image": images, "image_labels": labels}).logits


def enlarged(maps, size, *, align_corners):
    return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


def published_multi_scale(image, index, scales):
    """Section 3.5 B for one image and class, in float64."""
    network, image = FakeNetwork(), image[None].double()
    total = 0
    for scale in scales:
        size = [round(side * scale) for side in image.shape[-2:]]
        for mirrored in (False, True):
            seen = F.interpolate(image, size, mode="bicubic", antialias=True)
            seen = seen.flip(-1) if mirrored else seen
            maps = enlarged(network.maps(seen).refined, size, align_corners=True)
            maps = enlarged(maps, image.shape[-2:], align_corners=False)
            total = total + (maps.flip(-1) if mirrored else maps)[0, index]
    values = total.clamp(min=0)
    low, high = values.min(), values.max()
    values = torch.where(values < low + 1e-5, 0, values)
    return ((values - low - 1e-5) / (high - low + 1e-5)).clamp(min=0)


def published_multi_crop(image, index, scales, crop, stride):
    """Section 3.5 D for one image and class, box by box, in float64."""
    network, image = FakeNetwork(), image[None].double()
    total, covered = (torch.zeros(image.shape[-2:], dtype=torch.float64) for _ in range(2))
    for scale in scales:
        for top, left, bottom, right in crop_boxes(tuple(image.shape[-2:]), scale, crop, stride):
            box = image[..., top:bottom, left:right]
            seen = F.interpolate(box, (crop, crop), mode="bilinear", antialias=True)
            for mirrored in (False, True):
                maps = network.maps(seen.flip(-1) if mirrored else seen).refined
                maps = enlarged(maps, (crop, crop), align_corners=True)
                maps = maps.flip(-1) if mirrored else maps
                maps = enlarged(maps, (bottom - top, right - left), align_corners=False)
                total[top:bottom, left:right] += maps[0, index]
                covered[top:bottom, left:right] += 1
    values = total / covered
    low, high = values.min(), values.max()
    return torch.where(values < low + 1e-5, 0, (values - low) / (high - low + 1e-5))


class TestMultiScale:
    def test_it_is_that_of_the_definition(self):
        images = images_of()
        found = predicted(MultiScale(), images, labels_of([0, 1, 4], [0, 5]))
        assert found.shape == (2, 2, 32, 40)
        for place, index, image in ((0, 1, 0), (1, 4, 0), (0, 5, 1)):
            expected = published_multi_scale(images[image], index, MULTI_SCALES)
            assert expected.max() > 0.99
            torch.testing.assert_close(found[image, place].double(), expected, rtol=0, atol=1e-5)

    def test_a_mirrored_image_has_the_mirrored_maps(self):
        images, labels = images_of(), labels_of([0, 1, 4], [0, 5, 2])
        found = predicted(MultiScale((0.5, 1.5)), images, labels)
        mirrored = predicted(MultiScale((0.5, 1.5)), images.flip(-1), labels)
        torch.testing.assert_close(mirrored, found.flip(-1), rtol=0, atol=1e-5)

    def test_an_image_has_the_maps_that_it_has_alone(self):
        images, labels = images_of(3), labels_of([0, 1, 4], [0], [2, 5])
        found = predicted(MultiScale(), images, labels)
        for index, ids in enumerate(foreground_ids(labels, 0)):
            one = slice(index, index + 1)
            alone = predicted(MultiScale(), images[one], labels[one])
            torch.testing.assert_close(found[one, : len(ids)], alone, rtol=0, atol=1e-6)

    def test_a_scale_that_leaves_less_than_a_pixel_takes_one(self):
        network = FakeNetwork()
        found = predicted(MultiScale((0.01, 1.0)), images_of(), labels_of([1], [5]), network)
        assert found.shape == (2, 1, 32, 40)
        assert found.isfinite().all()
        assert {shape[2:] for shape in network.seen} == {(1, 1), (32, 40)}


class TestMultiCrop:
    def test_it_is_that_of_the_definition(self):
        images = images_of(1)
        scales = (0.75, 1.0, 2.5)
        found = predicted(MultiCrop(scales, 24, 16, 5), images, labels_of([1, 3]))
        for place, index in ((0, 1), (1, 3)):
            expected = published_multi_crop(images[0], index, scales, 24, 16)
            torch.testing.assert_close(found[0, place].double(), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("batch_size", [1, 4, 1000])
    def test_how_many_boxes_are_seen_at_once_changes_nothing(self, batch_size):
        images, labels = images_of(), labels_of([1, 3], [0, 5])
        expected = predicted(MultiCrop((0.75, 1.5), 24, 16, 7), images, labels)
        network = FakeNetwork()
        inference = MultiCrop((0.75, 1.5), 24, 16, batch_size)
        found = predicted(inference, images, labels, network)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        boxes = len(inference.boxes((32, 40)))
        assert sum(shape[0] for shape in network.seen) == 2 * 2 * boxes, "twice, for each image"
        assert max(shape[0] for shape in network.seen) == min(batch_size, boxes)
        assert {shape[1:] for shape in network.seen} == {(3, 24, 24)}

    def test_the_published_boxes_of_a_usual_image_are_87(self):
        assert len(MultiCrop(MULTI_CROP_SCALES, 448, 300, 8).boxes((375, 500))) == 87

    def test_neighbours_in_the_batch_change_no_bit(self):
        images, labels = images_of(3), labels_of([0, 1, 4], [0], [2, 5])
        inference = MultiCrop((1.0, 2.0), 24, 16, 3)
        found = predicted(inference, images, labels)
        for index, ids in enumerate(foreground_ids(labels, 0)):
            alone = predicted(inference, images[index : index + 1], labels[index : index + 1])
            assert torch.equal(found[index, : len(ids)], alone[0])

    def test_a_mirrored_image_has_the_mirrored_maps_where_boxes_mirror(self):
        """A box that spans the whole width does so mirrored, too."""
        images, labels = images_of(1), labels_of([1, 4])
        inference = MultiCrop((0.5,), 24, 24, 8)
        found = predicted(inference, images, labels)
        mirrored = predicted(inference, images.flip(-1), labels)
        torch.testing.assert_close(mirrored, found.flip(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("inference", [MultiScale((0.5, 1.0)), MultiCrop((1.0,), 24, 16, 4)])
class TestBoth:
    def test_values_lie_between_0_and_1_and_reach_both(self, inference):
        maps = predicted(inference, images_of(), labels_of([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]))
        assert (maps.amin((2, 3)) == 0).all()
        assert (maps.amax((2, 3)) > 0.999).all()
        assert (maps <= 1).all()

    def test_without_a_label_the_network_is_not_asked(self, inference):
        network = FakeNetwork()
        maps = predicted(inference, images_of(), labels_of([0], [0]), network)
        assert maps.shape == (2, 0, 32, 40)
        assert network.seen == []

    def test_the_order_of_classes_is_that_of_the_ids(self, inference):
        images = images_of(1)
        several = predicted(inference, images, labels_of([5, 2, 3]))
        for place, index in enumerate((2, 3, 5)):
            single = predicted(inference, images, labels_of([index]))
            torch.testing.assert_close(several[:, place], single[:, 0], rtol=0, atol=1e-6)

    def test_autocast_gives_float32_near_to_that_without(self, inference):
        images, labels = images_of(), labels_of([1], [2])
        predictor = CamPredictor(RefinedMaps(FakeNetwork(), "bf16"), inference, 0)
        found = predictor.of_batch({"image": images, "image_labels": labels}).logits
        assert found.dtype == torch.float32
        expected = predicted(inference, images, labels)
        assert (found - expected).abs().max() > 0, "it had an effect"
        torch.testing.assert_close(found, expected, rtol=0, atol=0.1)

    def test_heat_maps_are_those_of_the_image_as_it_is_stored(self, inference):
        images, labels = images_of(), labels_of([1, 4], [3])
        plain = predicted(inference, images, labels)
        crf = HEAT_MAP_CRF._replace(iterations=2)
        found = predicted(inference, images, labels, crf=crf)
        pictures = denormalize(images)
        expected = heat_maps(plain[0], pictures[0], crf=crf)
        assert torch.equal(found[0], expected)
        assert torch.equal(found[1, :1], heat_maps(plain[1, :1], pictures[1], crf=crf))


def test_foreground_ids_leave_the_background_out():
    labels = labels_of([0, 3, 5], [0], [2])
    assert foreground_ids(labels, 0) == [[3, 5], [], [2]]
    assert foreground_ids(labels, None) == [[0, 3, 5], [0], [2]]
    assert foreground_ids(labels, 3) == [[0, 5], [0], [2]]


def test_a_flat_map_is_no_response():
    maps = torch.full((2, 4, 4), 0.3)
    maps[1, 0, 0] = 0.8
    found = between_limits(maps)
    assert (found[0] == 0).all()
    np.testing.assert_allclose(found[1, 0, 0], 1, atol=1e-4)
    assert found[1].sum() == found[1, 0, 0]


@pytest.mark.gpu
@pytest.mark.parametrize("inference", [MultiScale((0.5, 1.0)), MultiCrop((1.0,), 24, 16, 4)])
@pytest.mark.parametrize("crf", [None, HEAT_MAP_CRF._replace(iterations=2)])
def test_maps_of_a_gpu_are_those_of_the_cpu(monkeypatch, inference, crf):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = cam_network(CLASSES).eval()
    batch = {"image": images_of(), "image_labels": labels_of([0, 1, 4], [0, 5])}
    found = []
    with torch.no_grad():
        network.classifier.weight.mul_(8)  # maps that differ from place to place
        for device in ("cpu", "cuda"):
            predictor = CamPredictor(RefinedMaps(network.to(device)), inference, 0, crf)
            moved = {name: value.to(device) for name, value in batch.items()}
            found.append(predictor.of_batch(moved).logits)
    assert found[1].is_cuda
    torch.testing.assert_close(found[1].cpu(), found[0], rtol=0, atol=5e-3)
