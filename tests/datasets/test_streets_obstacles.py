import cv2
import numpy as np
import pytest
import torch

from datasets.streets import Streets, StreetsObstacles
from datasets.streets.hazards import plan_with_obstacles
from datasets.streets.look import CONDITIONS
from datasets.streets.obstacles import KINDS, TURNS, VARIANTS, obstacle
from datasets.streets.paints import Surface
from datasets.streets.planning import plan_scene
from datasets.streets.render import render
from datasets.streets.solids import Body, add_ellipsoid, add_patterned_box, add_tube
from datasets.streets.towns import TOWNS
from datasets.taxonomy import ROAD_TRAIN_IDS
from datasets.transforms import Transform

SIZE = (128, 256)
FACE_SIDES = 6
OBSTACLE = int(Surface.OBSTACLE)


def unknown_of(picture):
    return picture.label_ids == OBSTACLE


def obstacles_of(scene):
    return [thing for thing in scene.things if thing.model == "obstacle"]


def volume(mesh):
    """By the divergence theorem: positive where faces look outwards, exact where they are flat."""
    total, start = 0.0, 0
    for count in mesh.counts:
        corners = mesh.points[start : start + count]
        start += count
        for i in range(1, count - 1):
            total += np.dot(corners[0], np.cross(corners[i], corners[i + 1])) / FACE_SIDES
    return total


def test_the_id_of_obstacles_is_no_id_of_cityscapes():
    assert OBSTACLE not in ROAD_TRAIN_IDS
    assert StreetsObstacles.usual_ood_ids == (OBSTACLE,)
    assert OBSTACLE not in Streets.train_ids
    assert StreetsObstacles.train_ids[OBSTACLE] == 255
    assert {k: v for k, v in StreetsObstacles.train_ids.items() if k != OBSTACLE} == ROAD_TRAIN_IDS


@pytest.mark.parametrize("condition", CONDITIONS)
def test_same_numbers_give_same_pixels_in_any_order(condition):
    first, second = (StreetsObstacles(None, "val", condition=condition) for _ in range(2))
    forwards = [first[i] for i in range(3)]
    backwards = [second[i] for i in reversed(range(3))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        for key in ("image", "label", "ood"):
            assert torch.equal(one[key], other[key])


@pytest.mark.parametrize("split", [*TOWNS, "relis_cal", "relis_test"])
def test_splits_have_the_items_of_plain_streets(split):
    plain, strewn = (kind(None, split, num_images=4) for kind in (Streets, StreetsObstacles))
    assert plain.items == strewn.items
    assert plain.origins() == strewn.origins()  # a model must not be fitted on the same scenes
    assert plain.fingerprint() != strewn.fingerprint()
    sample = strewn[1]
    assert set(sample["ood"].unique().tolist()) == {0, 1, 255}
    assert sample["dataset"] == "streets_obstacles"


def test_the_plain_scene_is_the_strewn_one_without_its_obstacles():
    for index in range(30):
        plain = plan_scene(0, "train", index)
        strewn = plan_with_obstacles(0, "train", index)
        count = len(plain.things)
        assert strewn.things[:count] == plain.things
        added = strewn.things[count:]
        assert 1 <= len(added) <= 4
        assert all(thing.model == "obstacle" for thing in added)
        assert not obstacles_of(plain)


def test_plain_pictures_show_no_obstacle_and_do_not_depend_on_what_was_drawn_before():
    before = render(2, "val", 5, "rain", SIZE)
    render(2, "val", 5, "rain", SIZE, has_obstacles=True)
    after = render(2, "val", 5, "rain", SIZE)
    assert (before.image == after.image).all()
    assert not unknown_of(after).any()


@pytest.mark.parametrize("condition", ["clear", "fog", "night", "snow"])
def test_all_but_obstacles_and_their_shadows_looks_the_same(condition):
    for index in range(4):
        plain = render(0, "val", index, condition, SIZE)
        strewn = render(0, "val", index, condition, SIZE, has_obstacles=True)
        unknown = unknown_of(strewn)
        near = cv2.dilate(unknown.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert (plain.label_ids == strewn.label_ids)[~near].all()
        assert (plain.depth == strewn.depth)[~near].all()
        changed = (plain.image != strewn.image).any(0)
        assert changed[~near].mean() < 0.08  # shadows and what light they take
        difference = np.abs(plain.image.astype(int) - strewn.image.astype(int)).mean(0)
        assert difference[unknown].mean() > 5 * difference[~unknown].mean()
        if condition in ("clear", "fog"):
            assert difference[unknown].mean() > 8


def test_labels_of_obstacles_are_the_same_in_every_condition():
    clear = render(0, "test", 3, "clear", SIZE, has_obstacles=True)
    for condition in CONDITIONS[1:]:
        other = render(0, "test", 3, condition, SIZE, has_obstacles=True)
        assert (other.label_ids == clear.label_ids).all()
        assert (other.image != clear.image).mean() > 0.5


def test_samples_always_tell_obstacles_from_classes():
    dataset = StreetsObstacles(None, "val", condition="adverse", image_size=(64, 128))
    for index in range(8):
        sample, raw = dataset[index], dataset.read_raw_label(index)
        assert torch.equal(sample["ood"] == 1, raw == OBSTACLE)
        assert torch.equal(sample["ood"] == 0, sample["label"] != 255)
        assert (sample["label"][raw == OBSTACLE] == 255).all()
        assert (sample["ood"] == 255).any()  # the ego vehicle and street furniture
        assert (sample["label"] != 255).float().mean() > 0.6


def test_no_ids_or_the_usual_ones_make_no_difference():
    by_default, empty, usual = (
        StreetsObstacles(None, "val", image_size=(64, 128), **options)
        for options in ({}, {"ood_ids": ()}, {"ood_ids": (OBSTACLE,)})
    )
    for other in (empty, usual):
        assert torch.equal(by_default[2]["ood"], other[2]["ood"])
    furniture = StreetsObstacles(None, "val", image_size=(64, 128), ood_ids=Streets.usual_ood_ids)
    raw = furniture.read_raw_label(2)
    assert (furniture[2]["ood"][raw == OBSTACLE] == 255).all()
    with pytest.raises(ValueError, match="7 is class road, a known class"):
        StreetsObstacles(None, "val", ood_ids=(7,))
    with pytest.raises(ValueError, match="40 cannot be out of distribution in streets"):
        Streets(None, "val", ood_ids=(OBSTACLE,))


def test_masks_follow_the_transform():
    dataset = StreetsObstacles(None, "val", transform=Transform(size=(48, 64)))
    assert dataset[0]["ood"].shape == dataset[0]["label"].shape == (48, 64)
    assert (dataset[0]["ood"] == 1).any()


def test_every_image_shows_obstacles_of_some_size():
    shares, largest, areas = [], [], []
    for index in range(60):
        split = tuple(TOWNS)[index % 3]
        unknown = unknown_of(render(1, split, index, "clear", SIZE, has_obstacles=True))
        found = cv2.connectedComponentsWithStats(unknown.astype(np.uint8), connectivity=8)[2]
        shares.append(unknown.mean())
        largest.append(found[1:, cv2.CC_STAT_AREA].max(initial=0))
        areas.extend(found[1:, cv2.CC_STAT_AREA].tolist())
    assert min(shares) > 0.001
    assert max(shares) < 0.1
    assert np.mean(np.array(shares) < 0.08) > 0.95
    assert 0.01 < np.median(shares) < 0.04
    assert np.mean(np.array(largest) >= 50) > 0.95
    assert np.percentile(areas, 10) < 120  # several sizes
    assert np.percentile(areas, 90) > 400


def test_obstacles_differ_in_kind_place_and_distance():
    scenes = [plan_with_obstacles(0, "train", index) for index in range(80)]
    pairs = [(scene, thing) for scene in scenes for thing in obstacles_of(scene)]
    assert {thing.options[0] for _, thing in pairs} == set(KINDS)
    assert {len(obstacles_of(scene)) for scene in scenes} == {1, 2, 3, 4}
    on_road = [-scene.street.edges[0] < t.x < scene.street.edges[1] for scene, t in pairs]
    assert 0.5 < np.mean(on_road) < 0.95
    distances = [thing.z for _, thing in pairs]
    assert min(distances) < 9
    assert max(distances) > 35


def test_obstacles_stand_on_the_ground_and_not_in_each_other():
    for index in range(40):
        scene = plan_with_obstacles(3, "train", index)
        placed = obstacles_of(scene)
        for number, thing in enumerate(placed):
            inside_kerbs = -scene.street.edges[0] < thing.x < scene.street.edges[1]
            assert thing.y == 0.0 or not inside_kerbs
            for other in placed[:number]:
                assert np.hypot(thing.x - other.x, thing.z - other.z) > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_obstacles(kind):
    for variant in range(VARIANTS):
        meshes = [obstacle(kind, variant, turn) for turn in range(TURNS)]
        for mesh in meshes:
            assert (mesh.surface == OBSTACLE).all()
            assert mesh.paint.max() < 28
            low, high = mesh.points.min(0), mesh.points.max(0)
            assert 0 <= low[1] < 0.06
            assert 0.2 < high[1] < 2.6
            assert np.ptp(mesh.points[:, 0]) < 3
        assert all(len(mesh.counts) == len(meshes[0].counts) for mesh in meshes)
        # turned by half a turn it has the same size
        half = np.ptp(meshes[TURNS // 2].points, axis=0)
        np.testing.assert_allclose(np.ptp(meshes[0].points, axis=0), half)
        assert 0.02 < volume(meshes[1]) < 6
        palettes = KINDS[kind].palettes
        assert len(palettes) >= 2
        assert all(max(m.paint[m.paint < 4], default=0) < len(p) for p in palettes for m in meshes)


def test_solids_face_outwards_and_have_the_volume_of_their_shape():
    body = Body(Surface.OBSTACLE)
    add_tube(body.part(at=(1, 2, 3)), ((0, 0, 0), (0, 2, 0)), (0.5, 0.5), (0,), corners=64,
             caps=(0, 0))  # fmt: skip
    assert volume(body.build(0.7)) == pytest.approx(np.pi * 0.25 * 2, rel=0.01)
    body = Body(Surface.OBSTACLE)
    add_ellipsoid(body.part(), (0, 1, 0), (1, 0.5, 2), [(0,)] * 40, corners=60)
    assert volume(body.build(2.0)) == pytest.approx(4 / 3 * np.pi, rel=0.02)
    body = Body(Surface.OBSTACLE)
    add_ellipsoid(body.part(), (0, 0, 0), (1, 1, 1), [(0,), (1,), (2,)], corners=6)
    assert set(body.build(0.0).paint) == {0, 1, 2}


def test_a_checker_board_covers_half_of_each_side():
    body = Body(Surface.OBSTACLE)
    add_patterned_box(body.part(), (0, 0, 0), (4, 4, 4), (4, 4, 4))
    mesh = body.build(0.0)
    assert (mesh.paint == 0).sum() == 5  # the sides that can be seen
    assert (mesh.paint == 1).sum() == 5 * 8


def test_parts_are_drawn_from_the_back_and_from_below():
    body = Body(Surface.OBSTACLE)
    body.part().box((-1, 0, 2), (1, 1, 3), 0)
    body.part().box((-1, 0, -3), (1, 1, -2), 1)
    body.part(1, (0, 1, 2.5)).box((-1, 0, -0.5), (1, 1, 0.5), 2)
    assert list(dict.fromkeys(body.build(0.0).paint.tolist())) == [0, 1, 2]
    assert list(dict.fromkeys(body.build(np.pi).paint.tolist())) == [1, 0, 2]
