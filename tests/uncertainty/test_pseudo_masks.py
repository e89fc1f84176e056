import numpy as np
import pytest
import torch

from uncertainty.dense_crf import HEAT_MAP_CRF, PSEUDO_MASK_CRF
from uncertainty.pseudo_masks import (
    MOST_VARIATION,
    claimed,
    coefficient_of_variation,
    heat_maps,
    proportional_mask,
    smoothed,
)

SIZE = (12, 16)


def square(top, left, bottom, right, size=SIZE, value=1.0):
    values = torch.zeros(size)
    values[top:bottom, left:right] = value
    return values


def random_maps(count, seed=0, size=SIZE):
    """Smooth blobs in [0, 1], float32."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, count, 4, 4, generator=generator)
    maps = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
    return maps / maps.amax((1, 2), keepdim=True)


def mask_of(classes, maps, **settings):
    options = {"crf": None, "background": 0, **settings}
    return proportional_mask(torch.tensor(classes), maps, None, **options)


def by_the_definition(classes, maps, background_power=11, cam_threshold=0.05, cv_scale=0.3):
    """The mask of section 3.6 of the system's description, pixel by pixel, in float64."""
    height, width = maps.shape[1:]
    claims, importance = [], []
    for values in maps.astype(np.float64):
        high = values[values > cam_threshold]
        cv = cv_scale * high.std() / (high + 1e-8).mean() if high.size else 0.0
        lifted = np.where(values < cam_threshold, 0, values) ** (1 - cv)
        unclear = np.abs(lifted - (1 - lifted) ** background_power) < 1e-5
        assert not unclear.any()
        claim = lifted > (1 - lifted) ** background_power
        claims.append(claim)
        importance.append(values / (1 + (values * claim).sum()))
    label = np.zeros((height, width), np.uint8)
    for row in range(height):
        for column in range(width):
            planes = [float(not any(claim[row, column] for claim in claims))]
            planes += [
                share[row, column] * claim[row, column]
                for share, claim in zip(importance, claims, strict=True)
            ]
            best = int(np.argmax(planes))
            label[row, column] = classes[best - 1] if best else 0
    return label


class TestVariation:
    def test_a_constant_map_has_none(self):
        maps = torch.stack([torch.full(SIZE, 0.7), square(2, 3, 8, 9)])
        assert coefficient_of_variation(maps).tolist() == [0, 0]
        torch.testing.assert_close(smoothed(maps), maps)

    def test_it_is_that_of_the_pixels_above_the_threshold(self):
        maps = random_maps(3, 1)
        for values, found in zip(
            maps.double().numpy(), coefficient_of_variation(maps), strict=True
        ):
            high = values[values > 0.05]
            assert float(found) == pytest.approx(0.3 * high.std() / high.mean(), rel=1e-6)
        doubled = coefficient_of_variation(maps, cv_scale=0.6)
        torch.testing.assert_close(doubled, 2 * coefficient_of_variation(maps))

    def test_a_map_without_any_response_has_none(self):
        assert coefficient_of_variation(torch.full((1, *SIZE), 0.04)).tolist() == [0]
        assert smoothed(torch.full((1, *SIZE), 0.04)).sum() == 0

    def test_uneven_maps_are_lifted_and_stay_in_order(self):
        maps = random_maps(2, 2)
        lifted = smoothed(maps)
        kept = maps >= 0.05
        assert (lifted[kept] >= maps[kept]).all()
        assert (lifted[kept] > maps[kept] + 0.01).any()
        assert (lifted[~kept] == 0).all()
        assert lifted.max() <= 1

    def test_an_extremely_uneven_map_stays_finite(self):
        maps = torch.full((1, 40, 40), 0.051)
        maps[0, 0, 0] = 1
        assert coefficient_of_variation(maps, cv_scale=10).item() == MOST_VARIATION
        maps[0, 5:] = 0
        assert smoothed(maps, cv_scale=10).isfinite().all()


class TestMask:
    def test_a_square_becomes_itself(self):
        mask = mask_of([5], square(2, 3, 8, 9)[None])
        assert torch.equal(mask, (5 * square(2, 3, 8, 9)).to(torch.uint8))

    @pytest.mark.parametrize("classes", [(3, 9), (9, 3)])
    def test_an_overlap_of_equal_heights_goes_to_the_smaller_one(self, classes):
        small, large = square(4, 4, 8, 8), square(2, 2, 11, 14)
        order = sorted(range(2), key=lambda index: classes[index])
        maps = torch.stack([small, large])[order]
        mask = mask_of(sorted(classes), maps)
        expected = torch.where(small > 0, classes[0], (classes[1] * large).int())
        assert torch.equal(mask.int(), expected.int())

    def test_it_is_that_of_the_definition(self):
        for seed in range(6):
            maps = random_maps(3, seed)
            found = mask_of([2, 4, 11], maps).numpy()
            np.testing.assert_array_equal(found, by_the_definition((2, 4, 11), maps.numpy()))
            knobs = {"background_power": 3, "cam_threshold": 0.3, "cv_scale": 0.1}
            found = mask_of([2, 4, 11], maps, **knobs).numpy()
            expected = by_the_definition((2, 4, 11), maps.numpy(), **knobs)
            np.testing.assert_array_equal(found, expected)

    def test_no_other_class_than_those_of_the_image_appears(self):
        found = set(mask_of([4, 7], random_maps(2)).unique().tolist())
        assert found <= {0, 4, 7}
        assert {4, 7} <= found

    def test_without_a_background_class_unclaimed_pixels_are_void(self):
        maps = torch.stack([square(0, 0, 4, 4), square(6, 6, 9, 9)])
        with_it, without = (
            mask_of([0, 2], maps, background=1),
            mask_of([0, 2], maps, background=None),
        )
        assert set(with_it.unique().tolist()) == {0, 1, 2}
        assert torch.equal(without, with_it.masked_fill(with_it == 1, 255))

    @pytest.mark.parametrize(("background", "value"), [(0, 0), (3, 3), (None, 255)])
    def test_an_image_without_foreground_is_background(self, background, value):
        maps = torch.zeros(0, *SIZE)
        mask = proportional_mask(
            torch.zeros(0, dtype=torch.int64), maps, None, crf=None, background=background
        )
        assert torch.equal(mask, torch.full(SIZE, value, dtype=torch.uint8))

    def test_a_wide_background_narrows_the_classes(self):
        maps = random_maps(1, 3)
        wide, narrow = (claimed(maps, None, crf=None, background_power=power) for power in (20, 1))
        assert narrow.sum() < wide.sum()
        assert not (narrow & ~wide).any()
        assert torch.equal(narrow, maps > 0.5)

    def test_it_does_not_depend_on_the_channels_of_others(self):
        """Classes apart from each other have the masks that they have alone."""
        left, right = square(1, 1, 6, 6), square(6, 8, 11, 15)
        together = mask_of([1, 2], torch.stack([left, right]))
        apart = mask_of([1], left[None]) + mask_of([2], right[None])
        assert torch.equal(together, apart)


class TestCrf:
    def image(self):
        """A bright rectangle on dark ground."""
        image = torch.full((3, 24, 32), 30, dtype=torch.uint8)
        image[:, 6:18, 8:24] = 220
        return image

    def responses(self):
        """A map that covers the rectangle and spills over it, weakly, by two pixels."""
        weak = square(4, 6, 20, 26, (24, 32), 0.1)
        return torch.maximum(weak, square(6, 8, 18, 24, (24, 32), 0.8))[None]

    def test_masks_follow_the_edges_of_the_image(self):
        wanted = square(6, 8, 18, 24, (24, 32))
        plain = mask_of([1], self.responses())
        refined = proportional_mask(
            torch.tensor([1]), self.responses(), self.image(), crf=PSEUDO_MASK_CRF, background=0
        )
        wrong = [(mask != wanted).float().mean() for mask in (plain, refined)]
        assert wrong[0] > 0.1
        assert wrong[1] < 0.2 * wrong[0]

    def test_no_iterations_leave_the_comparison_as_it_is(self):
        still = PSEUDO_MASK_CRF._replace(iterations=0)
        maps = random_maps(2, 5, (24, 32))
        expected = claimed(maps, None, crf=None)
        assert torch.equal(claimed(maps, self.image(), crf=still), expected)

    def test_classes_claim_pixels_independently(self):
        maps = torch.cat([self.responses(), square(0, 0, 5, 30, (24, 32), 0.6)[None]])
        both = claimed(maps, self.image(), crf=PSEUDO_MASK_CRF)
        for index in range(2):
            alone = claimed(maps[index : index + 1], self.image(), crf=PSEUDO_MASK_CRF)
            assert torch.equal(both[index : index + 1], alone)

    def test_heat_maps_are_probabilities_at_the_edges_of_the_image(self):
        maps = torch.cat([self.responses(), square(20, 0, 24, 32, (24, 32), 0.6)[None]])
        heat = heat_maps(maps, self.image(), crf=HEAT_MAP_CRF)
        assert heat.shape == maps.shape
        assert (heat >= 0).all()
        assert (heat.sum(0) <= 1 + 1e-5).all()
        assert heat[0, 6:18, 8:24].min() > 0.9
        assert heat[0, 4:6, 6:26].max() < 0.1
        none = torch.zeros(0, 24, 32)
        assert torch.equal(heat_maps(none, self.image(), crf=HEAT_MAP_CRF), none)
