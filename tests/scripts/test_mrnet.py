"""The scripts of the experiments on adaptation: their commands are right, and run to the report."""

import json

import cv2
import numpy as np
import pytest

from main import main
from tests.scripts.rehearsal import TORCHRUN, Rehearsal, commands, run
from tests.small_runs import SIZE

GTA5, SYNTHIA, ROBOTCAR = (f"mrnet/{name}.sh" for name in ("gta5", "synthia", "robotcar"))
ABLATIONS, CAMVID = "mrnet/ablations.sh", "mrnet/camvid.sh"
ROWS = ("source", "one", "plain", "rectified")
ADVERSARIAL = {"lambda_adv_target1": 0, "lambda_adv_target2": 0}
NO_TARGET = {**ADVERSARIAL, "lambda_kl_target": 0}


@pytest.mark.parametrize(
    ("script", "environment", "message"),
    [
        *((name, {}, "DATA_ROOT is not set: DATA_ROOT=DIR ") for name in (GTA5, ROBOTCAR, CAMVID)),
        (SYNTHIA, {"DATA_ROOT": "x"}, "DATA_ROOT is x, which has no synthia/"),
        (ROBOTCAR, {"DATA_ROOT": "x"}, "DATA_ROOT is x, which has no cityscapes/"),
        (ABLATIONS, {"DATA_ROOT": "x", "STUDIES": "fusion loss"}, "STUDIES has loss; it is of "),
        (CAMVID, {"DATA_ROOT": "x", "STUDIES": "night"}, "STUDIES has night; it is of game dusk"),
    ],
)
def test_a_script_says_what_it_needs(script, environment, message):
    done = run(script, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def data(tmp_path):
    for name in ("gta5", "synthia", "cityscapes", "robotcar"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return {"DATA_ROOT": str(tmp_path / "data"), "PRETRAINED": "none"}


def changes(one, other):
    """What a run has otherwise than another, whatever it is called."""
    names = vars(one).keys() - {"run_name", "typed"}
    return {
        name: getattr(one, name) for name in names if getattr(one, name) != getattr(other, name)
    }


def labellings(rehearsal):
    """By the network that made them."""
    made = [one for one in rehearsal.read if one.make_pseudo_labels]
    return {one.ckpt.stem.removeprefix("latest_"): one for one in made}


SETTINGS = {
    GTA5: ("gta5", "gta5", "cityscapes"),
    SYNTHIA: ("synthia", "synthia", "cityscapes"),
    ROBOTCAR: ("robotcar", "cityscapes_robotcar", "robotcar"),
}
FOLDERS = {"cityscapes_robotcar": "cityscapes"}


@pytest.fixture(params=SETTINGS)
def setting(request, tmp_path, data):
    """A script's setting as its name, source and target, and its commands."""
    return *SETTINGS[request.param], Rehearsal(tmp_path, request.param, **data, SEEDS="4 7")


def test_a_setting_has_four_networks_for_every_seed(setting, tmp_path):
    name, source, target, rehearsal = setting
    trained = rehearsal.trainings()
    assert list(trained) == [f"{name}_{row}_seed{seed}" for seed in (4, 7) for row in ROWS]
    assert list(rehearsal.tests()) == list(trained)
    assert rehearsal.read[-1].report == [str(tmp_path / "out/results")]
    for run_name, one in trained.items():
        assert one.continue_training
        assert run_name.endswith(f"_seed{one.random_seed}")
        assert (one.model, one.stop_itrs) == ("deeplab_multi_resnet101", 25_000)
        first_stage = "_source_" in run_name or "_one_" in run_name
        domain = source if first_stage else target
        assert (one.dataset, one.train_split) == (domain, "train")
        assert one.data_root == tmp_path / "data" / FOLDERS.get(domain, domain)


PUBLISHED = {  # what both stages of GTA5 to Cityscapes share, and what they do not
    "both": {
        **{"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        **{"lr_policy": "poly", "warm_up": 5000, "total_itrs": 100_000, "backbone_lr_factor": 0.1},
        **{"head_norm": "gn", "use_se": True, "lambda_seg": 0.5, "bn_momentum": 0.1},
        **{"class_balance": True, "often_balance": True, "max_value": 7, "autoaug": False},
        **{"train_transform": "resize_crop", "scale_range": [0.8, 1.2], "crop_classes": 10},
        **{"flip": 0.5, "lambda_me_target": 0, "mr_start": 15_000, "lr_repeat": "single"},
    },
    "one": {
        **{"lr": 2e-3, "droprate": 0.1, "batch_size": 2, "train_bn": False, "only_hard_label": 80},
        **{"input_size": (720, 1280), "crop_size": (512, 1024), "target_input_size": (512, 1024)},
        **{"lambda_adv_target1": 2e-4, "lambda_adv_target2": 1e-3, "lambda_kl_target": 0.1},
        **{"lr_discriminator": 1e-4, "target_flip": 0, "r1_every": 1, "mr_target": "fused"},
    },
    "rectified": {
        **{"lr": 1e-3, "droprate": 0.2, "batch_size": 9, "train_bn": True},
        **{"input_size": (640, 1280), "crop_size": (256, 512), "var_direction": "per_head"},
        **{"lambda_adv_target1": 0, "lambda_adv_target2": 0, "lambda_kl_target": 0},
    },
}


def test_both_stages_have_the_published_values(tmp_path, data):
    trained = Rehearsal(tmp_path, GTA5, **data, SEEDS="1").trainings()
    for row in ("one", "rectified"):
        values = {**PUBLISHED["both"], **PUBLISHED[row]}
        assert {name: getattr(trained[f"gta5_{row}_seed1"], name) for name in values} == values


def test_settings_without_published_commands_differ_where_the_defaults_did(tmp_path, data):
    sizes = {}
    for script, (name, _, _) in SETTINGS.items():
        trained = Rehearsal(tmp_path, script, **data, SEEDS="1").trainings()
        one, two = (trained[f"{name}_{row}_seed1"] for row in ("one", "rectified"))
        sizes[name] = (one.target_input_size, two.input_size, two.crop_classes)
        jitter = one.scale_range, one.crop_classes
        assert jitter == (([1, 1], 0) if name == "robotcar" else ([0.8, 1.2], 10))
    assert sizes == {
        "gta5": ((512, 1024), (640, 1280), 10),
        "synthia": ((512, 1024), (720, 1280), 10),
        "robotcar": ((960, 1280), (960, 1280), 4),
    }


def test_the_network_of_the_source_sees_nothing_of_the_target(setting):
    name, source, target, rehearsal = setting
    trained = rehearsal.trainings()
    one, alone = (trained[f"{name}_{row}_seed4"] for row in ("one", "source"))
    assert one.target_dataset == target
    assert (one.lambda_adv_target1, one.lambda_adv_target2) == (0.0002, 0.001)
    itself = {"target_dataset": source, "target_root": alone.data_root}
    if source == "cityscapes_robotcar":
        itself["target_input_size"] = alone.input_size
    assert changes(alone, one) == {**NO_TARGET, **itself}


def test_stage_two_starts_from_its_seeds_network_and_that_ones_labels(setting, tmp_path):
    name, _, target, rehearsal = setting
    trained, made = rehearsal.trainings(), labellings(rehearsal)
    for seed in (4, 7):
        plain, rectified = (trained[f"{name}_{row}_seed{seed}"] for row in ("plain", "rectified"))
        assert changes(plain, rectified) == {"pseudo_loss": "plain", "only_hard_label": 80}
        first = f"{name}_one_seed{seed}"
        assert rectified.init == tmp_path / f"out/checkpoints/latest_{first}.pth"
        assert rectified.pseudo_dir == made[first].pseudo_dir
        assert rectified.target_dataset is None
        assert (made[first].dataset, made[first].data_root) == (target, rectified.data_root)
        assert made[first].train_split == "train"
        assert made[first].pseudo_threshold == (0.9 if name == "synthia" else 0)
        assert made[first].eval_scales == [1, 1.25]
    assert len({one.pseudo_dir for one in made.values()}) == 2


def test_a_test_has_the_published_passes_and_means(setting, tmp_path):
    name, _, target, rehearsal = setting
    for run_name, one in rehearsal.tests().items():
        assert one.ckpt == tmp_path / f"out/checkpoints/latest_{run_name}.pth"
        assert (one.dataset, one.val_split) == (target, "val")
        assert one.eval_flip
        assert one.eval_scales == ([1, 0.8] if name == "robotcar" else [1, 1.25])
        assert one.infer_size == ((960, 1280) if name == "robotcar" else (512, 1024))
        assert (one.fuse_heads, one.fuse_weight_aux, one.upsample) == ("logits", 0.5, "probs")
        assert one.miou_subsets == (["synthia16", "synthia13"] if name == "synthia" else None)


def test_trainings_on_several_gpus_are_started_by_torchrun(tmp_path, data):
    started = commands(tmp_path, GTA5, **data, SEEDS="1", GPUS_ONE="2", GPUS_TWO="3")
    joint = [line for line in started if line[:4] == TORCHRUN]
    assert [line[4:7] for line in joint] == [
        [count, "main.py", "--sync_bn"] for count in ("2", "2", "3", "3")
    ]
    assert all(
        {"--test_only", "--make_pseudo_labels", "--report"} & set(line)
        for line in started
        if line not in joint
    )


def test_an_ablation_changes_what_it_is_about_and_nothing_else(tmp_path, data):
    rehearsal = Rehearsal(tmp_path, ABLATIONS, **data, SEEDS="3")
    trained = rehearsal.trainings()
    target = {
        "target_dataset": "cityscapes",
        "target_root": tmp_path / "data/cityscapes",
        "target_input_size": (512, 1024),
    }
    of_stage_one = {
        **{f"kl{value:g}": {"lambda_kl_target": value} for value in (0, 0.01, 0.05, 0.2, 0.5)},
        "labels": NO_TARGET,
        "agreement": ADVERSARIAL,
    }
    first = trained.pop("gta5_one_seed3")
    for name, changed in of_stage_one.items():
        assert changes(trained.pop(f"gta5_one_{name}_seed3"), first) == changed
    rectified, plain = (trained.pop(f"gta5_{name}_seed3") for name in ("rectified", "plain"))
    agreement = trained.pop("gta5_plain_agreement_seed3")
    assert changes(agreement, plain) == {**target, "lambda_kl_target": 0.1}
    for value in (0.7, 0.8, 0.9, 0.95, 0.99):
        cut = trained.pop(f"gta5_plain_threshold{value:g}_seed3")
        assert changes(cut, plain) == {"pseudo_threshold": value}
    of_rectified = {f"drop{value:g}": {"droprate": value} for value in (0, 0.1, 0.3, 0.5, 0.7)}
    of_rectified |= {name: {"var_direction": name} for name in ("main_aux", "aux_main", "mse")}
    for name, changed in of_rectified.items():
        assert changes(trained.pop(f"gta5_rectified_{name}_seed3"), rectified) == changed
    assert not trained
    assert list(labellings(rehearsal)) == ["gta5_one_seed3"]


def test_heads_are_judged_alone_and_with_other_weights(tmp_path, data):
    tests = Rehearsal(tmp_path, ABLATIONS, **data, STUDIES="weights fusion").tests()
    for network in ("one_seed1", "one_kl0_seed1", "rectified_seed1"):
        fused = tests[f"gta5_{network}"]
        for head in ("main", "aux"):
            assert changes(tests[f"gta5_{network}_{head}"], fused) == {"fuse_heads": head}
    equal, usual = (tests[f"gta5_rectified_seed1{name}"] for name in ("_equal", ""))
    assert changes(equal, usual) == {"fuse_weight_aux": 1}


def test_an_ablation_takes_over_the_networks_of_the_setting(tmp_path, data):
    whole = Rehearsal(tmp_path, GTA5, **data).trainings()
    studied = Rehearsal(tmp_path, ABLATIONS, **data).trainings()
    shared = whole.keys() & studied.keys()
    assert shared == {f"gta5_{row}_seed1" for row in ROWS[1:]}
    assert not any(changes(whole[name], studied[name]) for name in shared)


@pytest.fixture
def camvid(tmp_path):
    return Rehearsal(tmp_path, CAMVID, DATA_ROOT=str(tmp_path / "camvid"), STEPS="80", SEEDS="1 2")


STUDIES = {  # labelled, then unlabelled training images and the tested split of CamVid
    "game": (("streets", "game", "train"), "train", "test"),
    "dusk": (("camvid", None, "train_day"), "dusk_train", "dusk_test"),
}


@pytest.mark.parametrize("study", STUDIES)
def test_labels_of_the_target_are_read_by_the_tests_alone(camvid, study):
    labelled, unlabelled, tested = STUDIES[study]
    trained = {name: one for name, one in camvid.trainings().items() if name.startswith(study)}
    assert list(trained) == [f"{study}_{row}_seed{seed}" for seed in (1, 2) for row in ROWS]
    for name, one in trained.items():
        assert one.val_split == "none"
        read = (one.dataset, one.condition, one.train_split)
        target = (one.target_dataset, one.target_condition, one.target_split)
        row = name.split("_")[1]
        if row in ("plain", "rectified"):
            assert (one.method, *read) == ("rectified", "camvid", None, unlabelled)
            assert one.target_dataset is None
        else:
            assert (one.method, *read) == ("mrnet", *labelled)
            assert target == (labelled if row == "source" else ("camvid", None, unlabelled))
    for name, one in camvid.tests().items():
        if name.startswith(study):
            assert (one.dataset, one.condition, one.val_split) == ("camvid", None, tested)
    for name, one in labellings(camvid).items():
        if name.startswith(study):
            made = (one.dataset, one.condition, one.train_split)
            assert made == ("camvid", None, unlabelled)


def test_the_small_study_follows_from_its_number_of_steps(camvid):
    trained = camvid.trainings()
    assert {(one.total_itrs, one.warm_up) for one in trained.values()} == {(80, 4)}
    one = trained["dusk_one_seed2"]
    assert (one.mr_start, one.lambda_kl_target, one.r1_every) == (30, 0.1, 1)
    assert (one.lambda_adv_target1, one.lambda_adv_target2) == (0.0002, 0.001)


def test_the_small_study_measures_what_its_probabilities_are_worth(camvid):
    tests = camvid.tests()
    passes = ("eval_flip", "eval_scales", "fuse", "fuse_heads", "infer_size", "eval_amp")
    for one in (*tests.values(), *labellings(camvid).values()):
        assert [getattr(one, name) for name in passes] == [
            *(True, [1], "probs", "logits", None, "bf16")
        ]
    for one in tests.values():
        assert one.metrics == ["segmentation", "calibration", "misclassification"]
        assert [str(name) for name in one.confidence] == ["msp", "disagreement"]


def write_camvid(root):
    """A few images of every sequence; the colour of a pixel tells its class."""
    rng = np.random.default_rng(0)
    sequences = {"train": ("0006R0", "0001TP"), "test": ("Seq05VD", "0001TP")}
    for folder, names in sequences.items():
        (root / folder).mkdir(parents=True)
        (root / f"{folder}annot").mkdir()
        for stem in (f"{name}_{number:05d}" for name in names for number in range(4)):
            label = np.kron(rng.integers(0, 12, (5, 7)), np.ones((8, 8))).astype(np.uint8)
            image = np.stack([label * 20, 255 - label * 20, rng.integers(0, 255, SIZE)], 2)
            cv2.imwrite(str(root / folder / f"{stem}.png"), image.astype(np.uint8))
            cv2.imwrite(str(root / f"{folder}annot" / f"{stem}.png"), label)


@pytest.mark.slow
def test_the_small_study_from_nothing_to_the_report_and_again(tmp_path, caplog):
    """The second time nothing is trained, labelled or tested."""
    write_camvid(tmp_path / "camvid")
    settings = {
        "DATA_ROOT": str(tmp_path / "camvid"),
        "PRETRAINED": "none",
        "STEPS": "2",
        "SEEDS": "1",
        "EXTRA": "--crop_size 40x56 --batch_size 2 --num_workers 0 --amp off",
        "TEST_FLAGS": "--num_workers 0 --eval_amp off",
    }
    for line in commands(tmp_path, CAMVID, **settings):
        assert main(line[1:]) == 0, line
    results = sorted((tmp_path / "out/results").glob("*.json"))
    assert len(results) == 2 * len(ROWS)
    for path in results:
        total = json.loads(path.read_text())["results"]["total"]
        assert set(total["misclassification"]) == {"msp", "disagreement"}
    report = (tmp_path / "out/reports/mrnet_camvid/report.txt").read_text()
    assert "dusk_test" in report
    again = commands(tmp_path, CAMVID, **settings)
    assert not any("--test_only" in line for line in again)
    caplog.clear()
    for line in again[:-1]:
        assert main(line[1:]) == 0, line
    assert caplog.text.count("is finished") == 2 * len(ROWS)
    assert caplog.text.count("pseudo labels are there") == 2
