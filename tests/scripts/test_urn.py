"""The scripts of weak supervision have the paper's values and run to the report."""

import json

import pytest

from datasets.streets import dataset
from main import main
from tests.scripts.rehearsal import SCRIPTS, TORCHRUN, Rehearsal, commands, run, trains
from tests.small_runs import write_data

VOC, COCO, CAMVID, STREETS = (f"urn/{name}.sh" for name in ("voc", "coco", "camvid", "streets"))
BACKBONES = ("wideresnet38", "resnet101", "scalenet101", "res2net101")


@pytest.mark.parametrize(
    ("script", "environment", "message"),
    [
        *((name, {}, "DATA_ROOT is not set: DATA_ROOT=DIR ") for name in (VOC, COCO, CAMVID)),
        (VOC, {"DATA_ROOT": "x"}, "SEAM is not set: SEAM=FILE "),
        (VOC, {"DATA_ROOT": "x", "STAGES": "cams"}, "STAGES has cams; it is of single heat "),
        (VOC, {"DATA_ROOT": "x", "SEAM": "y"}, "PRETRAINED is imagenet, and no address is known"),
        (
            COCO,
            {"DATA_ROOT": "x", "PRETRAINED": "recipes"},
            "recipes, which has no scalenet101.pth",
        ),
        (
            *(VOC, {"DATA_ROOT": "x", "STAGES": "second", "BACKBONES": "resnet101 wideresnet38"}),
            "no address is known for the weights of wideresnet38",
        ),
        (CAMVID, {"DATA_ROOT": "x", "NOISES": "worse"}, "NOISES has worse; it is of balanced bias"),
        (STREETS, {"DECODER": "none"}, "DECODER has none; it is of argmax affinity crf"),
    ],
)
def test_a_script_says_what_it_needs(script, environment, message):
    done = run(script, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def data(tmp_path):
    return {"DATA_ROOT": str(tmp_path / "data"), "PRETRAINED": "none", "SEAM": "none"}


@pytest.fixture
def voc(tmp_path, data):
    return Rehearsal(tmp_path, VOC, **data, SEEDS="4 7")


@pytest.fixture
def coco(tmp_path, data):
    return Rehearsal(tmp_path, COCO, **data, SEEDS="4 7")


def made(rehearsal, action):
    """The commands of an action."""
    return [one for one in rehearsal.read if getattr(one, action)]


def values(opts, names):
    """Some flags."""
    return {name: getattr(opts, name) for name in names}


def order(rehearsal):
    """What each command does, and what it is called."""
    actions = ("make_cams", "make_pseudo_masks", "make_response_weights", "test_only", "report")
    names = {"make_cams": "cam_dir", "make_pseudo_masks": "pseudo_dir"}
    names |= {"make_response_weights": "weight_dir"}
    told = []
    for one in rehearsal.read:
        action = next((name for name in actions if getattr(one, name)), "train")
        folder = names.get(action)
        told.append((action, getattr(one, folder).name if folder else one.run_name))
    return told


def segmentations(seed):
    """The commands of a seed of a published table."""
    both = [f"second_{backbone}_seed{seed}" for backbone in BACKBONES]
    return [
        *(("train", f"first_seed{seed}"), ("test_only", f"first_seed{seed}")),
        ("make_response_weights", f"weights_seed{seed}"),
        *((action, name) for name in both for action in ("train", "test_only")),
    ]


def test_the_stages_of_voc_run_in_the_papers_order(voc):
    assert order(voc) == [
        *(("train", "cam_single"), ("make_cams", "heat_maps"), ("train", "cam_crops")),
        *(("make_cams", "cams"), ("make_pseudo_masks", "pseudo_masks")),
        *segmentations(4),
        *segmentations(7),
        ("report", "urn_voc"),
    ]


def test_coco_needs_neither_the_first_classifier_nor_its_heat_maps(coco):
    assert order(coco) == [
        *(("train", "cam"), ("make_cams", "cams"), ("make_pseudo_masks", "pseudo_masks")),
        *segmentations(4),
        *segmentations(7),
        ("report", "urn_coco"),
    ]


@pytest.fixture(params=["voc", "coco"])
def table(request):
    """A published table's name and commands."""
    return request.param, request.getfixturevalue(request.param)


def test_every_stage_reads_what_the_one_before_it_wrote(table, tmp_path):
    name, rehearsal = table
    out, trained = tmp_path / "out", rehearsal.trainings()
    for one in made(rehearsal, "make_cams"):
        heat = one.cam_dir.name == "heat_maps"
        run_name = {"voc": "cam_single" if heat else "cam_crops", "coco": "cam"}[name]
        assert one.ckpt == out / f"checkpoints/latest_{run_name}.pth"
    (masks,) = made(rehearsal, "make_pseudo_masks")
    assert masks.cam_dir == out / "cams"
    for weights, seed in zip(made(rehearsal, "make_response_weights"), (4, 7), strict=True):
        assert weights.ckpt == out / f"checkpoints/latest_first_seed{seed}.pth"
        first = trained[f"first_seed{seed}"]
        assert (first.pseudo_dir, first.weight_dir) == (masks.pseudo_dir, None)
        for backbone in BACKBONES:
            second = trained[f"second_{backbone}_seed{seed}"]
            assert (second.weight_dir, second.pseudo_dir) == (weights.weight_dir, None)
            assert second.init is None  # from ImageNet's weights again
    if name == "voc":
        assert trained["cam_crops"].cam_dir == out / "heat_maps"
    for one in rehearsal.read[:-1]:
        assert one.dataset == {"voc": "voc", "coco": "coco14"}[name]
        assert one.data_root == tmp_path / "data"
        if name == "voc":
            assert one.year == "2012_aug"
    for one in trained.values():
        assert one.continue_training
        assert (one.val_split, one.train_split) == ("none", "train")


# Of the specification's sections 3.3, 3.4 and 5 to 7.
CLASSIFIERS = {
    "cam_single": {
        **{"model": "cam_resnet38d", "lr": 0.02, "batch_size": 24, "epochs": 8},
        **{"train_transform": "long_side_crop", "long_side": [448, 768], "image_tags": "xml"},
    },
    "cam_crops": {
        **{"model": "cam_scalenet101", "lr": 0.02, "batch_size": 16, "epochs": 20},
        **{"train_transform": "multi_crop", "multi_crop_stride": None, "image_tags": "xml"},
        "multi_crop_scales": (0.75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3),
    },
    "cam": {
        **{"model": "cam_scalenet101", "lr": 0.01, "batch_size": 8, "epochs": 20},
        **{"train_transform": "long_side_crop", "long_side": [448, 768], "image_tags": "masks"},
    },
}
OF_CLASSIFIERS = {
    **{"method": "cam", "optimizer": "sgd", "momentum": 0.0005, "weight_decay": 5e-4},
    **{"lr_policy": "poly", "poly_exp": None, "crop_size": (448, 448), "output_stride": 8},
    **{"flip": 0.5, "color_jitter": 0.3, "hue_jitter": 0.1, "cam_consistency": "seam"},
    **{"cam_view_scale": 0.3, "cam_norm": "frozen", "cam_frozen_stages": 1},
}


def test_classifiers_have_the_published_values(voc, coco):
    trained = voc.trainings() | coco.trainings()
    for name, own in CLASSIFIERS.items():
        expected = OF_CLASSIFIERS | own
        assert values(trained[name], expected) == expected


def test_activation_maps_and_pseudo_masks_have_the_published_values(voc, coco):
    heat, *others = made(voc, "make_cams") + made(coco, "make_cams")
    assert (heat.cam_inference, heat.cam_scales, heat.cam_crf_iterations) == (
        *("multi_scale", None, 10),
    )
    assert len(others) == 2
    boxes = {"cam_inference": "multi_crop", "cam_scales": None, "cam_crop": 448}
    boxes |= {"cam_stride": None, "cam_crf_iterations": 0}
    for one in others:
        assert values(one, boxes) == boxes
    masks = {"crf_iterations": 10, "cam_threshold": 0.05, "cv_scale": 0.3, "background_power": 11}
    for one in made(voc, "make_pseudo_masks") + made(coco, "make_pseudo_masks"):
        assert values(one, masks) == masks


SEGMENTATIONS = {
    "both": {
        **{"method": "supervised", "optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
        **{"lr_policy": "poly_floor", "poly_exp": None, "backbone_lr_factor": 1, "warm_up": 0},
        **{"train_transform": "fit_crop", "base_size": None, "scale_range": [0.5, 2], "flip": 0.5},
        **{"photometric_distortion": True, "bn_momentum": 0.1, "nesterov": False},
        **{"loss_type": "cross_entropy", "loss_normalize": "all", "lambda_seg": 0.4},
    },
    "voc": {
        **{"lr": 0.005, "lr_floor": 1e-4, "total_itrs": 20_000, "batch_size": 16},
        **{"val_interval": 2000},
    },
    "coco": {
        **{"lr": 0.01, "lr_floor": 5e-5, "total_itrs": 40_000, "batch_size": 32},
        **{"val_interval": 4000},
    },
}
UNDERFIT = {"voc": 0.5, "coco": 0.8}  # beta and k


def side(name, backbone):
    """What a network sees: on COCO ScaleNet less than the others."""
    return 448 if (name, backbone) == ("coco", "scalenet101") else 512


def test_segmentations_have_the_published_values(table):
    name, rehearsal = table
    expected = SEGMENTATIONS["both"] | SEGMENTATIONS[name]
    for run_name, one in rehearsal.trainings().items():
        if one.method == "cam":
            continue
        assert values(one, expected) == expected
        stage, *middle, _ = run_name.split("_")
        backbone = middle[0] if middle else {"voc": "res2net101", "coco": "scalenet101"}[name]
        assert one.model == f"pspnet_{backbone}"
        assert one.norm_eval == (backbone == "resnet101")
        assert one.crop_size == (side(name, backbone),) * 2
        if stage == "first":
            limits = ("clamp", UNDERFIT[name], UNDERFIT[name])
            assert (one.underfit, one.underfit_beta, one.underfit_k) == limits
        else:
            assert one.underfit == "off"
            assert (one.weighting, one.weight_threshold, one.label_source) == (
                *("threshold", 0.05, "cyclic"),
            )


def test_twelve_passes_in_windows_make_the_weights_and_the_tests(table):
    name, rehearsal = table
    passes = {
        **{"eval_flip": True, "eval_scales": [0.5, 0.75, 1, 1.25, 1.5, 1.75], "fuse": "probs"},
        **{"eval_size": "native", "fuse_heads": "main", "infer_size": None, "infer_fit": None},
    }
    weights = made(rehearsal, "make_response_weights")
    for one in [*weights, *rehearsal.tests().values()]:
        assert values(one, passes) == passes
        seen = side(name, one.model.removeprefix("pspnet_"))
        assert (one.infer_short_side, one.sliding_window) == (seen, (seen, seen))
        assert seen * (1 - one.window_overlap) == {512: 480, 448: 420}[seen]
        assert one.eval_crf == one.test_only  # the decoder of the weights has its own
    making = {"response_preset": name, "response_scales": None, "response_decoder": "crf"}
    making |= {"response_reduce": "max", "response_normalize": "image", "restrict_to_tags": False}
    for one in weights:
        assert values(one, making) == making
    for one in rehearsal.tests().values():
        assert one.val_split == "val"
        assert one.metrics == ["segmentation", "misclassification", "flagged"]


def test_stages_can_be_left_out_and_masks_be_the_users_own(tmp_path, data, voc):
    mine = Rehearsal(tmp_path, VOC, **data, MASKS="mine", BACKBONES="resnet101")
    names = ["first_seed1", "second_resnet101_seed1"]
    assert list(mine.trainings()) == names
    assert str(mine.trainings()["first_seed1"].pseudo_dir) == "mine"
    assert not made(mine, "make_cams")
    classifier = Rehearsal(tmp_path, VOC, **data, STAGES="crops masks")
    assert order(classifier) == order(voc)[2:5]


def test_the_first_classifier_starts_from_the_whole_released_one(tmp_path, data):
    seam = tmp_path / "seam.pth"
    seam.touch()
    single = Rehearsal(tmp_path, VOC, **{**data, "SEAM": str(seam)}).trainings()["cam_single"]
    assert (single.init, single.pretrained_backbone) == (seam, "none")


def test_each_backbone_starts_from_its_own_file_of_a_folder(tmp_path, data):
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in BACKBONES:
        (folder / f"{name}.pth").touch()
    for script, classifier in ((VOC, "cam_crops"), (COCO, "cam")):
        told = {**data, "PRETRAINED": str(folder)}
        trained = Rehearsal(tmp_path, script, **told).trainings()
        assert trained[classifier].pretrained_backbone == str(folder / "scalenet101.pth")
        for name in BACKBONES:
            second = trained[f"second_{name}_seed1"]
            assert second.pretrained_backbone == str(folder / f"{name}.pth")


def test_trainings_on_several_gpus_are_started_by_torchrun(tmp_path, data):
    started = commands(tmp_path, VOC, **data, GPUS="8")
    launcher = [*TORCHRUN, "8", "main.py", "--sync_bn"]
    joint = [line for line in started if line[:7] == launcher]
    assert len(joint) == 2 + 1 + len(BACKBONES)
    assert all(line[0] == "main.py" for line in started if line not in joint)


def test_a_classifier_has_no_more_gpus_than_its_batches_can_be_split_over(tmp_path, data):
    started = [line for line in commands(tmp_path, COCO, **data, GPUS="16") if "--sync_bn" in line]
    gpus = {line[line.index("--run_name") + 1]: line[4] for line in started}
    assert gpus.pop("cam") == "8"
    assert set(gpus.values()) == {"16"}
    own = commands(tmp_path, COCO, **data, GPUS="16", CAM_GPUS="2")
    assert next(line[4] for line in own if "cam" in line) == "2"


@pytest.fixture
def camvid(tmp_path, data):
    return Rehearsal(tmp_path, CAMVID, **data, STEPS="80", SEEDS="1 2")


def changes(one, other):
    """What a run has otherwise than another, whatever it is called."""
    names = vars(one).keys() - {"run_name", "typed"}
    return {
        name: getattr(one, name) for name in names if getattr(one, name) != getattr(other, name)
    }


@pytest.mark.parametrize(("noise", "share"), [("balanced", 0.5), ("biased", 0.75)])
def test_a_row_of_damaged_labels_changes_what_it_is_about(camvid, tmp_path, noise, share):
    trained = camvid.trainings()
    for seed in (1, 2):
        clean = trained[f"clean_seed{seed}"]
        assert (clean.label_damage, clean.weight_dir, clean.underfit) == (None, None, "off")
        assert (clean.total_itrs, clean.random_seed, clean.val_split) == (80, seed, "none")
        damage = {"label_damage": share}
        masks = {"weight_dir": tmp_path / f"out/{noise}_masks_seed{seed}"}
        rows = {
            "plain": damage,
            "underfit": {**damage, "underfit": "clamp"},
            "cyclic": {**masks, "weight_threshold": 1},
            "weighted": masks,
            "linear": {**masks, "weighting": "linear"},
            "original": {**masks, **damage, "label_source": "original"},
        }
        for row, changed in rows.items():
            assert changes(trained[f"{noise}_{row}_seed{seed}"], clean) == changed
        first = trained[f"{noise}_underfit_seed{seed}"]
        assert (first.underfit_beta, first.underfit_k) == (0.5, 0.5)
        assert trained[f"{noise}_weighted_seed{seed}"].weight_threshold == 0.05


def test_the_small_study_weighs_and_measures_with_the_same_passes(camvid, tmp_path):
    weights = made(camvid, "make_response_weights")
    tests = camvid.tests()
    assert len(weights) == 4
    passes = ("eval_flip", "eval_scales", "fuse", "eval_amp", "infer_size", "eval_size")
    networks = [one for one in tests.values() if one.ckpt]
    for one in [*weights, *networks]:
        assert [getattr(one, name) for name in passes] == [
            *(True, [1], "probs", "bf16", None, "native")
        ]
    for one in weights:
        noise = one.weight_dir.name.removesuffix("_seed1").removesuffix("_seed2")
        seed = one.weight_dir.name[-1]
        first = f"{noise.removesuffix('_masks')}_underfit_seed{seed}"
        assert one.ckpt == tmp_path / f"out/checkpoints/latest_{first}.pth"
        assert (one.train_split, one.response_preset, one.response_decoder) == (
            *("train", "voc", "argmax"),
        )
        own, of_network = tests[one.weight_dir.name], tests[f"{first}_train"]
        assert own.logits_dir == one.weight_dir
        assert own.val_split == of_network.val_split == "train"
        assert of_network.ckpt == one.ckpt
    for one in networks:
        assert one.val_split == ("train" if one.run_name.endswith("_train") else "test")
        assert one.label_damage is None
        assert [str(name) for name in one.confidence] == ["msp", "response_scaling"]
        assert one.metrics == ["segmentation", "misclassification", "flagged"]


def test_a_report_holds_one_kind_of_damage_and_the_clean_labels(camvid, tmp_path):
    results = tmp_path / "out/results"
    assert [one.report for one in made(camvid, "report")] == [
        [f"{results}/clean_*.json", f"{results}/{noise}_*.json"] for noise in ("balanced", "biased")
    ]


@pytest.fixture
def streets(tmp_path):
    return Rehearsal(tmp_path, STREETS, SEEDS="1 2", STEPS="80", PRETRAINED="none")


def test_pixel_labels_of_streets_are_read_by_the_yardstick_and_the_tests_alone(streets, tmp_path):
    trained, out = streets.trainings(), tmp_path / "out"
    rows = ("labels", "cam", "plain", "underfit", "cyclic", "weighted")
    assert list(trained) == [f"{row}_seed{seed}" for seed in (1, 2) for row in rows]
    for seed in (1, 2):
        labels, cam, plain, underfit, cyclic, weighted = (
            trained[f"{row}_seed{seed}"] for row in rows
        )
        assert (cam.method, cam.image_tags, cam.pseudo_dir) == ("cam", "masks", None)
        masks = {"pseudo_dir": out / f"pseudo_masks_seed{seed}"}
        assert changes(plain, labels) == masks
        assert changes(underfit, plain) == {"underfit": "clamp"}
        weights = {"weight_dir": out / f"cyclic_masks_seed{seed}"}
        assert changes(weighted, labels) == weights
        assert changes(cyclic, weighted) == {"weight_threshold": 1}
    for one in trained.values():
        assert (one.dataset, one.val_split, one.total_itrs) == ("streets_objects", "none", 80)
        assert one.crop_size == (192, 384)


def test_masks_of_streets_are_made_and_measured_at_the_size_of_the_trainings(streets, tmp_path):
    out, tests = tmp_path / "out", streets.tests()
    maps = made(streets, "make_cams") + made(streets, "make_pseudo_masks")
    for one in [*maps, *made(streets, "make_response_weights"), *tests.values()]:
        assert (one.dataset, one.crop_size) == ("streets_objects", (192, 384))
        if one.test_only:
            assert one.eval_size == "crop"
        else:
            assert (one.train_transform, one.train_split) == ("resize", "train")
    for seed in (1, 2):
        for name in (f"pseudo_masks_seed{seed}", f"cyclic_masks_seed{seed}"):
            assert (tests[name].logits_dir, tests[name].val_split) == (out / name, "train")
    networks = {name: one for name, one in tests.items() if one.ckpt}
    for name, one in networks.items():
        assert one.val_split == ("train" if name.endswith("_train") else "test")
    assert list(networks)[-1] == "weighted_seed2"


def test_the_stages_of_streets_run_in_order(tmp_path):
    rehearsal = Rehearsal(tmp_path, STREETS, SEEDS="3", PRETRAINED="none", DECODER="crf")
    of_maps = [pair for pair in order(rehearsal) if pair[0] not in ("test_only", "report")]
    assert of_maps == [
        *(("train", "labels_seed3"), ("train", "cam_seed3"), ("make_cams", "cams_seed3")),
        *(("make_pseudo_masks", "pseudo_masks_seed3"), ("train", "plain_seed3")),
        *(("train", "underfit_seed3"), ("make_response_weights", "cyclic_masks_seed3")),
        *(("train", "cyclic_seed3"), ("train", "weighted_seed3")),
    ]
    assert made(rehearsal, "make_response_weights")[0].response_decoder == "crf"


@pytest.mark.parametrize("script", [VOC, COCO, CAMVID, STREETS])
def test_what_is_tested_is_not_tested_again(tmp_path, data, script):
    first = Rehearsal(tmp_path, script, **data)
    results = tmp_path / "out/results"
    results.mkdir(parents=True)
    for name in first.tests():
        (results / f"{name}.json").write_text("{}")
    again = Rehearsal(tmp_path, script, **data)
    assert not again.tests()
    assert again.trainings().keys() == first.trainings().keys()
    assert all(one.continue_training for one in again.read if trains(one))


def test_every_script_says_how_it_is_called():
    for name in (VOC, COCO, CAMVID, STREETS):
        text = (SCRIPTS / name).read_text()
        head = text[: text.index("\nsource ")]
        assert f"scripts/{name}" in head
        for variable in ("SEEDS", "PRETRAINED"):
            assert variable in head


def played(lines):
    """Run commands in this process; how many of them are tests."""
    for line in lines:
        assert main(line[1:]) == 0, line
    return sum("--test_only" in line for line in lines)


def miou(folder, name):
    """Of a result."""
    return json.loads((folder / f"{name}.json").read_text())["results"]["total"]["miou"]


@pytest.mark.slow
def test_damaged_labels_from_nothing_to_the_report_and_again(tmp_path, caplog):
    """The second time nothing is trained, weighed or tested."""
    (tmp_path / "camvid").mkdir()
    settings = {
        "DATA_ROOT": str(write_data(tmp_path / "camvid")),
        **{"PRETRAINED": "none", "STEPS": "2", "SEEDS": "1", "NOISES": "balanced"},
        "EXTRA": "--crop_size 40x56 --batch_size 2 --num_workers 0 --amp off",
        "TEST_FLAGS": "--num_workers 0 --eval_amp off",
    }
    assert played(commands(tmp_path, CAMVID, **settings)) == 1 + 6 + 2
    # The cyclic masks are what the network that made them predicts for the training images.
    results = tmp_path / "out/results"
    assert miou(results, "balanced_masks_seed1") == miou(results, "balanced_underfit_seed1_train")
    report = (tmp_path / "out/reports/urn_camvid_balanced/report.txt").read_text()
    for label in ("cyclic masks, linear weights", "damaged labels, clamp at 0.5"):
        assert f"cross_entropy, {label}" in report
    caplog.clear()
    assert played(commands(tmp_path, CAMVID, **settings)) == 0
    assert caplog.text.count("is finished") == 1 + 6
    assert caplog.text.count("response weights are there") == 1


@pytest.mark.slow
def test_streets_from_tags_to_the_report_and_again(tmp_path, caplog, monkeypatch):
    """The second time nothing is trained, made or tested."""
    monkeypatch.setattr(dataset, "NUM_IMAGES", {"train": 6, "val": 2, "test": 4})
    settings = {
        **{"PRETRAINED": "none", "STEPS": "2", "SEEDS": "1", "SIZE": "64x128"},
        "EXTRA": "--batch_size 2 --num_workers 0 --amp off",
        "TEST_FLAGS": "--num_workers 0",
    }
    assert played(commands(tmp_path, STREETS, **settings)) == 5 + 3
    results = tmp_path / "out/results"
    assert miou(results, "cyclic_masks_seed1") == miou(results, "underfit_seed1_train")
    report = (tmp_path / "out/reports/urn_streets/report.txt").read_text()
    for label in ("cross_entropy, pseudo labels, clamp at 0.5", "cyclic_masks", "pseudo_masks"):
        assert label in report
    caplog.clear()
    assert played(commands(tmp_path, STREETS, **settings)) == 0
    assert caplog.text.count("is finished") == 6
    for content in ("activation maps", "response weights"):
        assert f"{content} are there" in caplog.text
