import numpy as np
import torch

from engine.pictures import full_palette, outlines, overlay

PALETTE = torch.tensor([[128, 64, 128], [0, 0, 142], [70, 130, 180]], dtype=torch.uint8)


def test_overlay_blends_outlines_and_leaves_void_alone():
    image = np.full((4, 6, 3), 100, np.uint8)
    ids = np.zeros((4, 6), np.uint8)
    ids[:, 3:] = 1
    ids[3] = 255
    palette = full_palette(PALETTE)
    found = overlay(image, ids, palette)
    np.testing.assert_array_equal(found[0, 0], np.round(40 + 0.6 * palette[0]))
    np.testing.assert_array_equal(found[0, 5], np.round(40 + 0.6 * palette[1]))
    line = outlines(ids)
    assert line[:3, 3].all()
    assert line[3].all()
    assert line.sum() == 3 + 6
    assert (found[0, 3] > found[0, 5]).all()
    without = overlay(image, np.full((4, 6), 255, np.uint8), palette)
    np.testing.assert_array_equal(without, image)


def test_black_classes_are_not_tinted():
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    palette = full_palette(torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8))
    np.testing.assert_array_equal(overlay(image, np.zeros((5, 5), np.uint8), palette), image)


def test_outlines_widen_with_the_image():
    thin, wide = (np.zeros((size, size), np.uint8) for size in (500, 1000))
    thin[:, 250:] = 1
    wide[:, 500:] = 1
    assert outlines(thin)[0].sum() == 1
    assert outlines(wide)[0].sum() == 2
