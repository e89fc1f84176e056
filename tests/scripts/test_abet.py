"""The scripts of AbeT's experiments: their commands are right, and they run to the report."""

import pytest

from datasets.streets import write_layout
from main import main
from tests.scripts.rehearsal import TORCHRUN, Rehearsal, commands, run
from uncertainty import parse_score_name

CITYSCAPES, CAMVID = "abet/cityscapes.sh", "abet/camvid.sh"
OF_CITYSCAPES = ("mapillary", "cityscapes", "lost_and_found", "road_anomaly")


def test_a_script_without_data_says_what_it_needs(tmp_path):
    for name in (CITYSCAPES, CAMVID):
        done = run(name)
        assert done.returncode == 2
        assert done.stderr.startswith("DATA_ROOT is not set: DATA_ROOT=DIR ")
    there = {"DATA_ROOT": str(tmp_path)}
    assert "ROAD_ANOMALY is not set: ROAD_ANOMALY=DIR " in run(CAMVID, **there).stderr
    for number, missing in enumerate(OF_CITYSCAPES):
        for data in OF_CITYSCAPES[:number]:
            (tmp_path / data).mkdir(exist_ok=True)
        done = run(CITYSCAPES, **there)
        assert done.returncode == 2
        assert f"which has no {missing}/" in done.stderr
    (tmp_path / OF_CITYSCAPES[-1]).mkdir()
    assert "PRETRAINED is not set: PRETRAINED=FILE " in run(CITYSCAPES, **there).stderr
    for name, more in ((CITYSCAPES, "PRETRAINED"), (CAMVID, "ROAD_ANOMALY")):
        done = run(name, **there, **{more: "none"}, HEADS="cosin")
        assert done.returncode == 2
        assert "no head is called cosin" in done.stderr


@pytest.fixture
def data_of_cityscapes(tmp_path):
    for name in (*OF_CITYSCAPES, "smiyc_obstacle"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return {"DATA_ROOT": str(tmp_path / "data"), "PRETRAINED": "none", "SEEDS": "4 7"}


@pytest.fixture
def cityscapes(tmp_path, data_of_cityscapes):
    return Rehearsal(tmp_path, CITYSCAPES, **data_of_cityscapes)


def test_both_stages_are_those_of_the_recipes(cityscapes, tmp_path):
    trained = cityscapes.trainings()
    assert list(trained) == [
        *("mapillary_cosine", "cityscapes_cosine_seed4", "cityscapes_cosine_seed7"),
        *("mapillary_linear", "cityscapes_linear_seed4", "cityscapes_linear_seed7"),
    ]
    for name, one in trained.items():
        stage, head = name.split("_")[:2]
        assert one.continue_training
        assert (one.dataset, one.data_root) == (stage, tmp_path / "data" / stage)
        assert (one.model, one.epochs) == ("deeplabv3plus_wideresnet38", 175)
        assert (one.head, one.temperature) in (("cosine", "learned"), ("linear", "none"))
        assert one.head == head
        if stage == "cityscapes":
            assert one.init == tmp_path / f"out/checkpoints/best_mapillary_{head}.pth"
            assert one.reset_head
            assert f"seed{one.random_seed}" == name.split("_")[2]
        else:
            assert one.pretrained_backbone == "none"
            assert one.init is None


def test_every_score_is_judged_on_every_set_that_is_there(cityscapes, tmp_path):
    tests = cityscapes.tests()
    sets = ("lost_and_found", "road_anomaly", "smiyc_obstacle")
    assert list(tests) == [
        f"cityscapes_{head}_{network}{on}"
        for head in ("cosine", "linear")
        for network in ("seed4", "seed7", "ensemble")
        for on in ("", *(f"_on_{name}" for name in sets))
    ]
    for name, one in tests.items():
        network, _, on = name.partition("_on_")
        assert one.data_root == tmp_path / "data" / (on or "cityscapes")
        if not on:
            assert (one.dataset, one.val_split) == ("cityscapes", "val_cv2")
            assert one.metrics == ["segmentation"]
            continue
        assert (one.dataset, one.metrics) == (on, ["ood", "components"])
        assert one.val_split == ("val" if on.startswith("smiyc") else "test")
        judged = {str(parse_score_name(score)) for score in one.ood_score}
        if network.endswith("ensemble"):
            assert {"abet", "abet@mean_logit", "abet@deviation", "mutual_information"} <= judged
            assert len(one.weight) == 2
        else:
            assert one.score_statistics.name == f"score_statistics_{network}.pth"
            assert {"abet", "sml", "react+abet", "dice+abet", "odin+msp"} <= judged
            assert ("godin" in judged) == ("cosine" in network)


def test_statistics_are_of_the_images_that_the_network_was_trained_on(cityscapes):
    fits = [one for one in cityscapes.read if one.fit_score]
    assert len(fits) == 4
    for one in fits:
        assert (one.dataset, one.train_split) == ("cityscapes", "train_cv2")
        assert one.ckpt.name == f"best_{one.run_name}.pth"
    assert cityscapes.read[-1].report


def test_what_is_tested_is_not_tested_again(cityscapes, tmp_path, data_of_cityscapes):
    done = tmp_path / "out/results/cityscapes_cosine_seed4_on_road_anomaly.json"
    done.parent.mkdir()
    done.write_text("{}")
    again = Rehearsal(tmp_path, CITYSCAPES, **data_of_cityscapes)
    assert again.trainings() == cityscapes.trainings()
    assert again.tests().keys() == cityscapes.tests().keys() - {done.stem}


def test_a_training_on_several_gpus_is_started_by_torchrun(tmp_path, data_of_cityscapes):
    started = commands(tmp_path, CITYSCAPES, **data_of_cityscapes, GPUS="4")
    launcher = [*TORCHRUN, "4", "main.py", "--sync_bn"]
    alone = [line for line in started if line[0] == "main.py"]
    assert len(started) - len(alone) == 2 * (1 + 2)
    assert all(line[:7] == launcher for line in started if line not in alone)
    assert all({"--test_only", "--fit_score", "--report"} & set(line) for line in alone)


def test_one_seed_is_no_ensemble(tmp_path, data_of_cityscapes):
    rehearsal = Rehearsal(tmp_path, CITYSCAPES, **{**data_of_cityscapes, "SEEDS": "3"})
    assert not any(one.weight for one in rehearsal.read)


def test_camvid_is_trained_and_judged_with_both_heads(tmp_path):
    settings = {"DATA_ROOT": str(tmp_path / "camvid"), "ROAD_ANOMALY": str(tmp_path / "anomalies")}
    rehearsal = Rehearsal(tmp_path, CAMVID, **settings)
    trainings = rehearsal.trainings()
    assert list(trainings) == [
        f"camvid_{head}_seed{seed}" for head in ("linear", "cosine") for seed in (1, 2, 3)
    ]
    assert {(one.head, one.temperature) for one in trainings.values()} == {
        ("linear", "none"),
        ("cosine", "learned"),
    }
    assert {one.total_itrs for one in trainings.values()} == {800}
    tests = rehearsal.tests()
    assert len(tests) == 2 * 2 * (3 + 1)
    for name, one in tests.items():
        of_unknown = name.endswith("_on_road_anomaly")
        assert one.data_root == tmp_path / ("anomalies" if of_unknown else "camvid")
        assert one.val_split == "test"
        assert one.dataset == ("road_anomaly" if of_unknown else "camvid")
    scores = tests["camvid_cosine_seed2_on_road_anomaly"].ood_score
    assert scores == ["abet", "energy", "msp", "entropy", "max_logit", "sml", "odin+msp",
                      "react+abet", "dice+abet", "godin"]  # fmt: skip
    assert tests["camvid_linear_seed1_on_road_anomaly"].ood_score == scores[:-1]
    ensemble = tests["camvid_linear_ensemble_on_road_anomaly"]
    assert ensemble.ood_score == ["abet", "abet@mean_logit", "abet@deviation", "mutual_information"]
    assert [path.stem for path in ensemble.weight] == [
        f"latest_camvid_linear_seed{seed}" for seed in (1, 2, 3)
    ]


@pytest.mark.slow
def test_cityscapes_from_nothing_to_the_report_and_again(tmp_path, caplog):
    """The second time nothing is trained, fitted or tested."""
    for name in OF_CITYSCAPES:
        write_layout(name, tmp_path / "data" / name, images_per_split=2, size=(48, 96))
    settings = {
        "DATA_ROOT": str(tmp_path / "data"),
        "PRETRAINED": "none",
        "HEADS": "cosine",
        "SEEDS": "1 2",
        "EXTRA": "--model deeplabv3plus_mobilenet --train_split train --val_split val --epochs 2"
        " --epoch_itrs 1 --rlx_off_epoch 1 --batch_size 2 --crop_size 48 --class_uniform_tile 32"
        " --val_interval 1 --num_workers 0 --amp off --eval_centre 48x96",
        "TEST_FLAGS": "--num_workers 0",
    }
    for line in commands(tmp_path, CITYSCAPES, **settings):
        assert main(line[1:]) == 0, line
    report = (tmp_path / "out/reports/abet_cityscapes/report.txt").read_text()
    for name in ("lost_and_found", "road_anomaly"):
        assert f"Unknown objects by score on {name} test" in report
    for score in ("godin", "sml", "dice+abet", "abet@deviation"):
        assert report.count(f"  {score} ") == 2
    assert "classifier.classifier.3.weight" in caplog.text, "the first stage's last layer"
    again = commands(tmp_path, CITYSCAPES, **settings)
    assert not any("--test_only" in line for line in again)
    caplog.clear()
    for line in again[:-1]:
        assert main(line[1:]) == 0, line
    assert caplog.text.count("is finished") == 1 + 2
    assert caplog.text.count("the statistics are there") == 2
