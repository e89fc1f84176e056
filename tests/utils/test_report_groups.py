import json
import re
from pathlib import Path

import pytest

from engine.reporting import NOT_TOLD_APART, OF_TRAINING
from tests.utils.result_files import ROAD_NAMES, write_result
from utils.report.groups import group_results, pair_with_baselines
from utils.report.paper import published
from utils.report.results import find_results, read_results

ROOT = Path(__file__).parents[2]
UCE = "uncertainty_cross_entropy"
MEMBERS = ["deeplabv3plus_resnet101", "deeplabv3plus_mobilenet"]


def groups_of(folder):
    rows = [
        row
        for path in find_results([str(folder)])
        for row in read_results(path, NOT_TOLD_APART, OF_TRAINING)
    ]
    return group_results(rows)


def by_label(groups):
    return {group.label: group.seeds for group in groups}


def test_seeds_and_incidental_flags_do_not_part_a_group(tmp_path):
    for seed in (10, 9, 1):
        write_result(tmp_path, seed=seed, testing={"random_seed": seed, "lr": seed})
        write_result(tmp_path, seed=seed, loss=UCE, training={"mask_dir": f"masks{seed}"})
    assert by_label(groups_of(tmp_path)) == {
        "cross_entropy": ("1", "9", "10"),
        UCE: ("1", "9", "10"),
    }


def test_a_flag_that_changes_the_training_parts_groups_and_is_named(tmp_path):
    for rate in (0.01, 0.001):
        write_result(tmp_path, name=f"a{rate}", training={"lr": rate})
    assert set(by_label(groups_of(tmp_path))) == {
        "cross_entropy, lr 0.01",
        "cross_entropy, lr 0.001",
    }


def test_a_flag_of_the_test_parts_groups_and_a_later_unset_flag_does_not(tmp_path):
    write_result(tmp_path, seed=1)
    write_result(tmp_path, seed=2, testing={"eval_flip": False, "calibrator": None})
    write_result(tmp_path, seed=3, testing={"eval_flip": True})
    assert by_label(groups_of(tmp_path)) == {
        "cross_entropy, test eval_flip off": ("1", "2"),
        "cross_entropy, test eval_flip on": ("3",),
    }


def test_best_and_latest_are_two_groups(tmp_path):
    for kind in ("best", "latest"):
        write_result(tmp_path, kind=kind, name=kind)
    assert set(by_label(groups_of(tmp_path))) == {"cross_entropy, best", "cross_entropy, latest"}


def test_members_are_rows_of_their_own_and_pair_with_their_like(tmp_path):
    for loss in ("cross_entropy", UCE):
        for seed in (1, 2):
            write_result(tmp_path, loss=loss, seed=seed, model="ensemble", members=MEMBERS)
    groups = groups_of(tmp_path)
    assert [group.facts.part for group in groups[::2]] == ["", *MEMBERS]
    assert groups[0].label == "whole, cross_entropy"
    assert groups[2].facts.model == "ensemble of resnet101 + mobilenet"
    pairs, notes = pair_with_baselines(groups, None)
    assert notes == []
    assert [(a.facts.part, a.facts.method) for a, _ in pairs] == [
        (part, "cross_entropy") for part in ("", *MEMBERS)
    ]
    assert [(b.facts.part, b.facts.method) for _, b in pairs] == [
        (part, UCE) for part in ("", *MEMBERS)
    ]


def test_like_members_are_counted_in_the_models_name(tmp_path):
    like = {"num_models": 3, "backbone": "deeplabv3plus_resnet50"}
    write_result(tmp_path, model="ensemble", training={**like, "member": None})
    write_result(tmp_path, model="ensemble", members=[MEMBERS[0], MEMBERS[0]], name="other")
    models = {group.facts.model for group in groups_of(tmp_path) if not group.facts.part}
    assert models == {"ensemble of 3 x resnet50", "ensemble of 2 x resnet101"}


def test_conditions_are_groups_where_every_result_has_them(tmp_path):
    for seed in (1, 2):
        write_result(tmp_path, seed=seed, conditions=("fog", "night"))
        write_result(tmp_path, seed=seed, loss=UCE, conditions=("fog",) if seed == 1 else None)
    groups = groups_of(tmp_path)
    assert [(g.facts.method, g.facts.tested_on, len(g.results)) for g in groups] == [
        ("cross_entropy", "acdc val", 2),
        (UCE, "acdc val", 2),
        ("cross_entropy", "acdc val fog", 2),
        ("cross_entropy", "acdc val night", 2),
    ]
    assert [group.subset for group in groups] == ["", "", "fog", "night"]
    assert groups[3].results[0].images is None


def test_a_deep_ensemble_joins_the_seeds_of_its_members(tmp_path):
    path = write_result(tmp_path, model="deep_ensemble")
    content = json.loads(path.read_text())
    one = content["checkpoint"]
    content["checkpoint"] = {
        "members": [
            {**one, "sha256": letter, "opts": {**one["opts"], "model": model, "random_seed": seed}}
            for letter, model, seed in (("a", MEMBERS[0], 7), ("b", MEMBERS[1], 8))
        ]
    }
    path.write_text(json.dumps(content))
    (group,) = groups_of(tmp_path)
    assert group.seeds == ("7+8",)
    assert group.facts.model == "deep_ensemble of resnet101 + mobilenet"
    assert group.facts.method == "cross_entropy"


def test_a_published_checkpoint_is_known_by_its_name(tmp_path):
    write_result(tmp_path, seed=7830581, recorded=False)
    (group,) = groups_of(tmp_path)
    assert group.seeds == ("7830581",)
    assert (group.facts.trained_on, group.facts.method) == ("acdc", "loss not recorded")


def test_the_nearest_of_several_baselines_is_taken(tmp_path):
    write_result(tmp_path, name="a", training={"lr": 0.01})
    write_result(tmp_path, name="b", training={"lr": 0.001})
    write_result(tmp_path, name="c", loss=UCE, training={"lr": 0.01})
    pairs, _ = pair_with_baselines(groups_of(tmp_path), None)
    assert [first.results[0].path.name for first, _ in pairs] == ["a.json"]
    write_result(tmp_path, name="c", loss=UCE, training={"lr": 0.1})
    groups = groups_of(tmp_path)
    pairs, notes = pair_with_baselines(groups, None)
    assert pairs == []
    assert "name one with --baseline" in notes[0]
    pairs, _ = pair_with_baselines(groups, "cross_entropy, lr 0.001")
    assert pairs[-1][0].results[0].path.name == "b.json"


def test_a_pattern_that_matches_nothing_lists_the_labels(tmp_path):
    write_result(tmp_path)
    with pytest.raises(ValueError, match="--baseline focal matches none.*: cross_entropy"):
        pair_with_baselines(groups_of(tmp_path), "focal")


def test_one_checkpoint_does_not_count_twice(tmp_path):
    write_result(tmp_path, name="a")
    write_result(tmp_path, name="b")
    with pytest.raises(ValueError, match=r"a.json and .*b.json are results of one checkpoint"):
        groups_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "0"}, "files of the test set differ"),
        ({"pixels": 7}, "1,000 and 7 labelled pixels"),
        ({"classes": ROAD_NAMES[:3]}, "other classes"),
    ],
)
def test_seeds_on_other_pixels_are_refused(tmp_path, change, words):
    write_result(tmp_path, seed=1)
    write_result(tmp_path, seed=2, **change)
    with pytest.raises(ValueError, match=f"not comparable: .*{words}"):
        groups_of(tmp_path)


def test_files_folders_and_globs(tmp_path):
    first, second = write_result(tmp_path / "r", name="a"), write_result(tmp_path / "r", name="b")
    for patterns in (
        [str(tmp_path / "r")],
        [str(tmp_path / "*" / "*.json")],
        [first, second, first],
    ):
        assert find_results(map(str, patterns)) == [first, second]
    with pytest.raises(ValueError, match="nowhere matches no result file"):
        find_results([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no result"):
        find_results([str(tmp_path / "empty")])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"checkpoint": {}}', "\x00"])
def test_a_foreign_file_is_named(tmp_path, text):
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"foreign\.json (is not a result|cannot be read)"):
        read_results(path, NOT_TOLD_APART, OF_TRAINING)


def test_the_papers_values_are_percent_and_only_where_they_belong(tmp_path):
    write_result(tmp_path, loss=UCE, model="ensemble", members=[*MEMBERS, "deeplabv3plus_resnet50"])
    write_result(tmp_path, loss="focal_loss")
    found = {(g.facts.part, g.facts.method): published(g.facts) for g in groups_of(tmp_path)}
    assert found["deeplabv3plus_mobilenet", UCE]["motorcycle"] == 26.0
    assert found["deeplabv3plus_resnet50", UCE]["motorcycle"] == 29.0
    assert found["", UCE] == {}
    assert found["", "focal_loss"] == {}


@pytest.mark.parametrize(
    ("trained", "tested", "loss", "name", "value"),
    [
        ("acdc", "acdc", UCE, "person", 49.0),
        ("cityscapes", "cityscapes", "cross_entropy", "miou", 69.0),
        ("cityscapes", "acdc", UCE, "traffic sign", 30.0),
        ("acdc", "cityscapes", "cross_entropy", "rider", 7.0),
    ],
)
def test_the_papers_tables(tmp_path, trained, tested, loss, name, value):
    write_result(tmp_path, trained_on=trained, tested_on=tested, loss=loss)
    (group,) = groups_of(tmp_path)
    assert published(group.facts)[name] == value


def test_stages_of_an_adaptation_are_one_table_beside_the_source_only(tmp_path):
    weights = {"lambda_adv_target1": 0.0002, "lambda_adv_target2": 0.001, "lambda_kl_target": 0.1}
    first = {"method": "mrnet", "dataset": "streets", "condition": "game"}
    second = {"method": "rectified", "dataset": "camvid"}
    of_source = {**first, "target_dataset": "streets", "target_condition": "game"}
    runs = {
        "source": {**of_source, **dict.fromkeys(weights, 0.0)},
        "one": {**first, **weights, "target_dataset": "camvid"},
        "plain": {**second, "pseudo_loss": "plain", "target_dataset": None},
        "two": {**second, "pseudo_loss": "rectified", "only_hard_label": 80.0},
    }
    for name, training in runs.items():
        for seed in (1, 2):
            write_result(tmp_path, name=f"{name}{seed}", seed=seed, training=training)
    groups = groups_of(tmp_path)
    assert [(group.label, group.seeds) for group in groups] == [
        ("source only, streets game", ("1", "2")),
        ("mrnet, streets game to camvid", ("1", "2")),
        ("plain pseudo labels", ("1", "2")),
        ("rectified pseudo labels", ("1", "2")),
    ]
    assert {group.data for group in groups} == {
        "trained on labels of another domain, tested on acdc val"
    }
    pairs, notes = pair_with_baselines(groups, None)
    assert {first.label for first, _ in pairs} == {"source only, streets game"}
    assert len(pairs) == 3
    assert not notes


DAMAGED = {"label_damage": 0.5}
MASKS = {"weight_dir": "masks", "label_source": "cyclic", "weight_threshold": 0.05}
OF_DAMAGED_LABELS = {  # the rows of scripts/urn/camvid.sh
    "cross_entropy": {},
    "cross_entropy, cyclic masks": {**MASKS, "weight_threshold": 1.0},
    "cross_entropy, cyclic masks, linear weights": {**MASKS, "weighting": "linear"},
    "cross_entropy, cyclic masks, weights 0.05 and 1": MASKS,
    "cross_entropy, damaged labels": DAMAGED,
    "cross_entropy, damaged labels, clamp at 0.5": {**DAMAGED, "underfit": "clamp"},
    "cross_entropy, damaged labels, weights 0.05 and 1": {
        **DAMAGED,
        **{**MASKS, "label_source": "original"},
    },
}
OF_TAGS = {  # and of scripts/urn/streets.sh
    "cam": {"method": "cam"},
    "cross_entropy": {},
    "cross_entropy, cyclic masks": {**MASKS, "weight_threshold": 1.0},
    "cross_entropy, cyclic masks, weights 0.05 and 1": MASKS,
    "cross_entropy, pseudo labels": {"pseudo_dir": "masks"},
    "cross_entropy, pseudo labels, clamp at 0.5": {"pseudo_dir": "masks", "underfit": "clamp"},
}


def write_supervised(folder, rows, seeds, **where):
    """A result of every row and seed, trained on maps in a folder of the seed's own."""
    for label, told in rows.items():
        for seed in seeds:
            own = {"underfit": "off", "underfit_k": 0.5, "weighting": "threshold", **told}
            for name in ("weight_dir", "pseudo_dir"):
                own[name] = f"{told[name]}_seed{seed}" if told.get(name) else None
            write_result(folder, name=f"{label}{seed}", seed=seed, training=own, **where)


@pytest.mark.parametrize("rows", [OF_DAMAGED_LABELS, OF_TAGS], ids=["damaged labels", "tags"])
def test_weak_supervision_is_told_by_labels_weights_and_pretended_underfitting(tmp_path, rows):
    write_supervised(tmp_path, rows, (1, 2, 3))
    assert by_label(groups_of(tmp_path)) == dict.fromkeys(sorted(rows), ("1", "2", "3"))


def test_masks_that_were_made_otherwise_are_two_groups(tmp_path):
    for decoder in ("argmax", "crf"):
        write_supervised(tmp_path, {decoder: {**MASKS, "weight_dir decoder": decoder}}, (1, 2))
    assert by_label(groups_of(tmp_path)) == {
        f"cross_entropy, cyclic masks, weights 0.05 and 1, weight_dir decoder {decoder}": ("1", "2")
        for decoder in ("argmax", "crf")
    }


def test_two_shares_of_damage_are_two_groups(tmp_path):
    for share in (0.5, 0.75):
        rows = {f"{share}": {"label_damage": share}}
        write_supervised(tmp_path, rows, (1, 2))
    assert by_label(groups_of(tmp_path)) == {
        "cross_entropy, damaged labels, label_damage 0.5": ("1", "2"),
        "cross_entropy, damaged labels, label_damage 0.75": ("1", "2"),
    }


def write_masks(folder, root, name):
    """The result of label maps in place of a network's predictions."""
    path = write_result(folder, name=name, sha256=name, recorded=False, split="train")
    content = json.loads(path.read_text())
    content["checkpoint"]["path"] = content["opts"]["logits_dir"] = f"{root}/{name}"
    path.write_text(json.dumps(content))


def test_predictions_from_files_are_told_by_their_folder_and_grouped_over_seeds(tmp_path):
    for seed in (1, 2):
        write_masks(tmp_path, "/out", f"pseudo_masks_seed{seed}")
        write_masks(tmp_path, "/out", f"cyclic_masks_seed{seed}")
    write_masks(tmp_path, "/out", "theirs")
    groups = groups_of(tmp_path)
    assert by_label(groups) == {
        "cyclic_masks": ("1", "2"),
        "pseudo_masks": ("1", "2"),
        "theirs": ("?",),
    }
    assert {group.facts.model for group in groups} == {"files"}


def test_folders_of_one_name_in_two_places_are_two_groups(tmp_path):
    for place in ("a", "b"):
        write_masks(tmp_path / place, f"/{place}", "masks_seed1")
    assert set(by_label(groups_of(tmp_path / "*" / "*.json"))) == {
        "masks, test logits_dir /a/masks",
        "masks, test logits_dir /b/masks",
    }


@pytest.mark.parametrize(
    ("script", "rows", "first"),
    [
        ("camvid", OF_DAMAGED_LABELS, "cross_entropy, damaged labels"),
        ("streets", OF_TAGS, "cross_entropy, pseudo labels"),
    ],
)
def test_each_study_names_its_plain_training_as_the_baseline(tmp_path, script, rows, first):
    text = (ROOT / f"scripts/urn/{script}.sh").read_text()
    (pattern,) = re.findall(r'--baseline "(.*)"', text)
    # Both studies also test on the training images, so labels name the data.
    where = {"trained_on": pattern.split(", ")[1], "tested_on": pattern.split(", ")[1]}
    write_supervised(tmp_path / "test", rows, (1, 2), split="test", **where)
    write_supervised(tmp_path / "train", {first: rows[first]}, (1,), split="train", **where)
    pairs, _ = pair_with_baselines(groups_of(tmp_path / "*" / "*.json"), pattern)
    assert {one.facts.method for one, _ in pairs} == {first}
    assert {other.facts.method for _, other in pairs} == rows.keys() - {first}
