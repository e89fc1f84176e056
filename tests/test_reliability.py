"""Reliability as its user runs it: every metric at once, calibrators, networks from elsewhere."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch

from engine import checkpoint
from main import main
from tests.datasets import layouts
from tests.small_runs import SIZE, flags, write_data
from uncertainty.calibrators import load_calibrator

NAME = "best_deeplabv3plus_mobilenet_camvid_os16_seed1"
METRICS = ["segmentation", "calibration", "misclassification", "pavpu"]

EXTERNAL = """
import torch
from torch import nn

class Coloured(nn.Module):
    "Logits from the colour of a pixel, at half the size."
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 11, 1)
    def forward(self, images):
        return {"out": self.layer(images)[..., ::2, ::2]}

def build():
    torch.manual_seed(0)
    return Coloured()

def two_classes():
    return nn.Conv2d(3, 2, 1)
"""


@pytest.fixture(scope="module")
def data(new_folder):
    return write_data(new_folder("camvid"))


@pytest.fixture(scope="module")
def network(data, new_folder):
    out = new_folder("network")
    assert main(flags(data, out, total_itrs=3)) == 0
    return out / "checkpoints" / f"{NAME}.pth"


def using(network, out, *argv, data=None):
    """A command on a trained network without further flags of its training."""
    base = ["--ckpt", network, "--output_dir", out, "--num_workers", 0]
    return list(map(str, [*base, *(["--data_root", data] if data else []), *argv]))


def result(out, name):
    return json.loads((out / "results" / f"{name}.json").read_text())


def test_every_metric_in_one_pass_with_pictures(data, network, tmp_path, capsys):
    argv = [
        "--test_only",
        "--run_name",
        "x",
        "--confidence",
        "msp",
        "energy",
        "--metrics",
        *METRICS,
    ]
    argv += ["--parity", "original", "--image_bootstrap", "20", "--per_scene"]
    assert main(using(network, tmp_path, *argv)) == 0
    total = result(tmp_path, "x")["results"]["total"]
    assert {"miou", "calibration", "misclassification", "pavpu", "intervals"} <= total.keys()
    assert set(total["misclassification"]) == {"msp", "energy"}
    assert "prr_original" in total["misclassification"]["msp"]
    low, high = total["intervals"]["calibration.ece"]
    assert low < total["calibration"]["ece"] < high
    assert total["calibration"]["pixels"] == total["pixels"]
    assert total["calibration"]["accuracy"] == pytest.approx(total["overall_accuracy"])
    pictures = {path.name for path in (tmp_path / "results" / "x").iterdir()}
    assert {"reliability_diagram.png", "risk_coverage_msp.png"} <= pictures
    printed = capsys.readouterr().out
    assert "ECE" in printed
    assert "PRR" in printed


def test_the_confidence_of_the_calibration_error_may_be_a_score(network, tmp_path):
    argv = ["--test_only", "--run_name", "e", "--metrics", "calibration"]
    assert main(using(network, tmp_path, *argv, "--ece_confidence", "entropy")) == 0
    found = result(tmp_path, "e")["results"]["total"]["calibration"]
    assert found["confidence"] == "entropy"
    assert 0 < found["mean_confidence"] < 100


def test_metrics_do_not_depend_on_the_batch_size(network, tmp_path):
    found = []
    for size in (1, 4):
        argv = ["--test_only", "--run_name", f"b{size}", "--val_batch_size", size]
        assert main(using(network, tmp_path, *argv, "--metrics", *METRICS)) == 0
        found.append(result(tmp_path, f"b{size}")["results"]["total"])
    one, four = found
    assert one["class_iou"] == four["class_iou"]
    for name in ("ece", "ks_error", "nll", "brier", "classwise_ece", "ece_equal_mass"):
        # not bitwise: convolutions over one and over four images round otherwise
        assert one["calibration"][name] == pytest.approx(four["calibration"][name], rel=1e-3)


@pytest.fixture(scope="module")
def calibrated(network, new_folder):
    """One calibrator of every kind, by kind."""
    out = new_folder("calibrators")
    more = {"cluster": ["--n_clusters", 2], "local": ["--lts_epochs", 1, "--print_interval", 1]}
    for kind in ("temperature", "vector", "cluster", "local"):
        argv = ["--fit_calibrator", kind, "--run_name", kind, *more.get(kind, ())]
        assert main(using(network, out, *argv, "--samples_per_image", 500)) == 0
    return {kind: out / "checkpoints" / f"calibrator_{kind}.pth" for kind in (*more, "temperature")}


@pytest.mark.parametrize("kind", ["temperature", "cluster", "local"])
def test_calibrators_change_the_confidence_and_never_the_prediction(
    kind, calibrated, network, tmp_path
):
    argv = ["--test_only", "--val_split", "test", "--metrics", *METRICS]
    assert main(using(network, tmp_path, *argv, "--run_name", "plain")) == 0
    more = ["--run_name", "calibrated", "--calibrator", calibrated[kind]]
    assert main(using(network, tmp_path, *argv, *more)) == 0
    before, after = result(tmp_path, "plain"), result(tmp_path, "calibrated")
    assert after["results"]["total"]["class_iou"] == before["results"]["total"]["class_iou"]
    nll = [each["results"]["total"]["calibration"]["nll"] for each in (before, after)]
    assert nll[0] != nll[1]
    assert before["calibrator"] is None
    assert after["calibrator"]["kind"] == kind
    assert after["calibrator"]["fitted_on"]["split"] == "val"


def test_the_manifest_says_what_a_calibrator_was_fitted_on(calibrated, network):
    _, manifest = load_calibrator(calibrated["temperature"])
    assert manifest["fitted_on"]["dataset"] == "camvid"
    assert manifest["fitted_on"]["images"] == 6
    assert manifest["origins"][0] == "camvid/0016E5_f00000"
    assert manifest["logits"] == "logits"
    assert manifest["checkpoints"] == [str(network)]
    assert manifest["flags"]["samples_per_image"] == 500
    assert manifest["fit"]["ece"]["after"] <= manifest["fit"]["ece"]["before"]


def test_fitting_again_does_nothing_and_otherwise_is_refused(network, tmp_path, caplog):
    argv = ["--fit_calibrator", "temperature", "--samples_per_image", "200"]
    assert main(using(network, tmp_path, *argv)) == 0
    path = tmp_path / "checkpoints" / f"calibrator_temperature_{NAME}_on_camvid_val.pth"
    before = path.read_bytes()
    assert main(using(network, tmp_path, *argv)) == 0
    assert "the calibrator is there" in caplog.text
    assert main(using(network, tmp_path, *argv, "--fit_objective", "nll")) == 1
    assert "holds another calibrator, of other flags" in caplog.text
    assert path.read_bytes() == before


def test_a_calibrator_is_refused_on_the_images_it_was_fitted_on(
    calibrated, network, tmp_path, caplog
):
    argv = ["--test_only", "--calibrator", calibrated["temperature"]]
    assert main(using(network, tmp_path, *argv)) == 1
    assert "was fitted on 6 of the 6 images of this test (camvid/0016E5_f00000" in caplog.text
    assert not (tmp_path / "results").exists()


def test_a_calibrator_of_one_network_is_refused_on_an_ensemble(
    calibrated, data, network, tmp_path, caplog
):
    argv = flags(
        data,
        tmp_path,
        model=["deep_ensemble", "--weight", network, "--weight", network],
        test_only=True,
        val_split="test",
        calibrator=calibrated["temperature"],
    )
    assert main(argv) == 1
    assert "was fitted on logits and this network gives log probabilities" in caplog.text


def test_an_ensemble_is_calibrated_with_its_members(data, network, tmp_path):
    pair = ["deep_ensemble", "--weight", network, "--weight", network]
    common = {"model": pair, "samples_per_image": 300}
    assert main(flags(data, tmp_path, fit_calibrator="temperature", run_name="e", **common)) == 0
    file = tmp_path / "checkpoints" / "calibrator_e.pth"
    tested = {"test_only": True, "val_split": "test", "metrics": METRICS, "calibrator": file}
    assert main(flags(data, tmp_path, run_name="r", model=pair, **tested)) == 0
    found = result(tmp_path, "r")["results"]
    ece = {name: each["calibration"]["ece"] for name, each in found["member"].items()}
    # twins: the ensemble of a network and itself is that network
    assert list(ece.values()) == pytest.approx([found["total"]["calibration"]["ece"]] * 2, rel=1e-4)


def test_a_local_temperature_of_an_ensemble_stops_and_goes_on(data, network, tmp_path, caplog):
    pair = ["deep_ensemble", "--weight", network, "--weight", network]
    argv = flags(data, tmp_path, model=pair, fit_calibrator="local", run_name="e", lts_epochs=1)
    argv = [*argv, "--batch_size", "4", "--accumulate", "4"]
    assert main(argv) == 0
    file = tmp_path / "checkpoints" / "calibrator_e.pth"
    before = load_calibrator(file)[1]["fit"]
    file.unlink()
    assert main([*argv, "--continue_training"]) == 0
    assert "is finished" in caplog.text
    assert load_calibrator(file)[1]["fit"] == before


def test_predictions_are_calibrated(calibrated, data, network, tmp_path):
    image = next((data / "test").glob("*.png"))
    argv = ["--predict", image, "--save_probs", "--scores", "entropy"]
    assert main(using(network, tmp_path, *argv, "--run_name", "plain")) == 0
    more = ["--calibrator", calibrated["temperature"], "--run_name", "calibrated"]
    assert main(using(network, tmp_path, *argv, *more)) == 0
    arrays = [
        np.load(tmp_path / "predictions" / name / f"{image.stem}_probabilities.npz")[
            "probabilities"
        ]
        for name in ("plain", "calibrated")
    ]
    value = load_calibrator(calibrated["temperature"])[0].value
    plain = torch.from_numpy(arrays[0]).float().clamp_(min=1e-6).log().div(float(value)).softmax(0)
    assert np.allclose(plain.numpy(), arrays[1], atol=5e-3)


def test_masks_of_a_calibrated_network_are_not_mixed_with_others(
    calibrated, network, tmp_path, caplog
):
    argv = ["--make_uncertainty_masks", "--mask_dir", tmp_path / "masks"]
    assert main(using(network, tmp_path, *argv)) == 0
    argv += ["--calibrator", calibrated["temperature"]]
    assert main(using(network, tmp_path, *argv)) == 1
    assert "masks of another origin: calibrator" in caplog.text


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder of another project's module."""
    (tmp_path / "zoo.py").write_text(EXTERNAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_network_from_elsewhere_is_tested_and_calibrated(data, project):
    common = ["--dataset", "camvid", "--data_root", data, "--output_dir", project]
    common += ["--num_workers", 0, "--external", "zoo:build"]
    fit = [*common, "--fit_calibrator", "vector", "--samples_per_image", 300, "--run_name", "v"]
    assert main(list(map(str, fit))) == 0
    argv = [*common, "--test_only", "--val_split", "test", "--run_name", "r"]
    argv += ["--calibrator", project / "checkpoints" / "calibrator_v.pth", "--metrics", *METRICS]
    assert main(list(map(str, argv))) == 0
    found = result(project, "r")
    assert found["checkpoint"]["path"] == "zoo:build"
    assert found["results"]["total"]["calibration"]["nll"] < np.log(11) + 0.1


def test_another_number_of_classes_is_refused(data, project, caplog):
    argv = ["--dataset", "camvid", "--data_root", data, "--output_dir", project, "--test_only"]
    assert main(list(map(str, [*argv, "--external", "zoo:two_classes", "--num_workers", 0]))) == 1
    assert (
        "zoo:two_classes gives logits of the shape (6, 2, 40, 56); expected (N, 11" in caplog.text
    )


def test_logits_in_files_give_the_numbers_of_their_network(data, network, tmp_path):
    logits = tmp_path / "logits"
    logits.mkdir()
    content = checkpoint.read(network)
    assert content["opts"]["model"] == "deeplabv3plus_mobilenet"
    argv = ["--predict", data / "test", "--save_probs", "--run_name", "p"]
    assert main(using(network, tmp_path, *argv)) == 0
    for file in (tmp_path / "predictions" / "p").glob("*_probabilities.npz"):
        name = file.name.removesuffix("_probabilities.npz")
        likely = np.load(file)["probabilities"].astype(np.float32)
        np.save(logits / f"{name}.npy", np.log(likely + 1e-8))
    common = ["--test_only", "--val_split", "test", "--metrics", *METRICS]
    assert main(using(network, tmp_path, *common, "--run_name", "net")) == 0
    stored = ["--dataset", "camvid", "--data_root", data, "--logits_dir", logits]
    argv = [*stored, *common, "--run_name", "files", "--output_dir", tmp_path, "--num_workers", 0]
    assert main(list(map(str, argv))) == 0
    of_network, of_files = (result(tmp_path, n)["results"]["total"] for n in ("net", "files"))
    assert of_files["miou"] == pytest.approx(of_network["miou"], abs=0.5)
    assert of_files["calibration"]["nll"] == pytest.approx(of_network["calibration"]["nll"], 1e-2)


def test_several_parts_in_one_pass_with_outliers(network, tmp_path):
    parts = ["camvid,split=val", "camvid,split=test,corruption=fog:3", "camvid,split=test"]
    argv = ["--test_only", "--run_name", "r", "--eval_on", *parts, "--metrics", *METRICS]
    assert main(using(network, tmp_path, *argv, "image_ood")) == 0
    found = result(tmp_path, "r")
    conditions = found["results"]["condition"]
    assert set(conditions) == {"", "fog:3"}
    assert conditions["fog:3"]["pixels"] < found["results"]["total"]["pixels"]
    assert found["dataset"]["images"] == 18
    assert [part["split"] for part in found["dataset"]["parts"]] == ["val", "test", "test"]
    outliers = found["results"]["image_ood"]["msp"]["against"]
    assert outliers["all"]["images"] == 6  # val and test share a data set and no condition
    with (tmp_path / "results" / "r.image_scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == 18
    assert sum(row["in_domain"] == "True" for row in rows) == 12
    assert all(0 < float(row["msp"]) < 1 for row in rows)


def test_a_calibrator_fitted_on_augmented_images_knows_their_origins(network, tmp_path, caplog):
    argv = ["--fit_calibrator", "temperature", "--eval_on", "camvid,split=val,augmented=2"]
    argv += ["--samples_per_image", "200", "--run_name", "a"]
    assert main(using(network, tmp_path, *argv)) == 0
    file = tmp_path / "checkpoints" / "calibrator_a.pth"
    _, manifest = load_calibrator(file)
    assert manifest["fitted_on"]["images"] == 12
    assert len(manifest["origins"]) == 6
    assert main(using(network, tmp_path, "--test_only", "--calibrator", file)) == 1
    assert "was fitted on 6 of the 6 images" in caplog.text


def test_unknown_objects_on_generated_streets(tmp_path, caplog):
    train = ["--output_dir", tmp_path, "--total_itrs", 2, "--val_interval", 2, "--num_workers", 0]
    train += ["--crop_size", "64x128", "--batch_size", 2, "--eval_size", "crop"]
    train += ["--val_split", "relis_cal", "--run_name", "s"]
    assert main(list(map(str, train))) == 0
    ckpt = tmp_path / "checkpoints" / "best_s.pth"
    argv = ["--test_only", "--metrics", "ood", "--val_split", "relis_test", "--run_name", "r"]
    assert main(using(ckpt, tmp_path, *argv)) == 0
    ood = result(tmp_path, "r")["results"]["total"]["ood"]["msp"]
    assert 0 < ood["ood_pixels"] < ood["pixels"]
    assert ood["auroc"] is not None
    assert main(using(ckpt, tmp_path, *argv, "--ood_classes", "26", "--overwrite")) == 1
    assert "26 is class car, a known class" in caplog.text


@pytest.fixture(scope="module")
def road_network(new_folder):
    """A network with the 19 road classes."""
    out = new_folder("road")
    train = ["--output_dir", out, "--total_itrs", 2, "--val_interval", 2, "--num_workers", 0]
    train += ["--crop_size", "64x128", "--batch_size", 2, "--run_name", "road"]
    assert main(list(map(str, [*train, "--val_split", "relis_cal", "--eval_size", "crop"]))) == 0
    return out / "checkpoints" / "best_road.pth"


def test_the_study_on_the_layouts_of_its_data_sets(road_network, tmp_path, caplog):
    cityscapes, acdc, idd = (tmp_path / name for name in ("cityscapes", "ACDC", "IDD"))
    layouts.cityscapes(cityscapes, cities=("frankfurt", "lindau", "munster"), split="val")
    layouts.acdc(acdc)
    layouts.idd(idd, ("1", "2"), split="val")
    for stage in ("cal", "test"):
        parts = [f"cityscapes,split=relis_{stage},root={cityscapes}", f"acdc,root={acdc}"]
        parts += [f"idd,root={idd},scene={1 if stage == 'cal' else 2}"]
        parts[1] += f",split={'val' if stage == 'cal' else 'train'}"
        argv = ["--eval_on", *parts, "--eval_size", "native", "--val_batch_size", 1]
        if stage == "cal":
            fit = ["--fit_calibrator", "temperature", "--samples_per_image", 20, "--run_name", "t"]
            assert main(using(road_network, tmp_path, *argv, *fit)) == 0
    argv += ["--calibrator", tmp_path / "checkpoints" / "calibrator_t.pth", "--run_name", "r"]
    argv += ["--test_only", "--metrics", *METRICS, "ood", "image_ood"]
    assert main(using(road_network, tmp_path, *argv)) == 0
    found = result(tmp_path, "r")["results"]
    assert set(found["dataset"]) == {"acdc", "cityscapes", "idd"}
    assert found["dataset"]["idd"]["class_iou"]["terrain"] is None
    assert found["dataset"]["idd"]["ood"]["msp"]["ood_pixels"] > 0
    assert found["dataset"]["cityscapes"]["ood"]["msp"]["auroc"] is None
    outliers = found["image_ood"]["msp"]
    assert outliers["in_domain"] == "cityscapes"
    assert {"acdc", "idd", "all"} <= outliers["against"].keys()
    assert (tmp_path / "results" / "r" / "ood_roc_pr_msp.png").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--min_t", "0"], "--min_t 0: a temperature is greater than 0"),
        (["--min_t", "3", "--max_t", "2"], "--min_t 3 must be less than --max_t 2"),
        (["--t_step", "0"], "--t_step 0 must be greater than 0"),
        (["--samples_per_image", "0"], "--samples_per_image 0: at least 1"),
        (["--eval_on", "camvidd"], "no data set is called 'camvidd'"),
        (["--eval_on", "camvid,splitt=val"], "splitt"),
        (["--eval_on", "camvid,corruption=fogg:3"], "did you mean 'fog'"),
        (["--eval_on", "camvid", "--val_split", "val"], "leave --val_split out"),
        (["--corruption", "fog:9"], "fog:9"),
        (["--metrics", "image_ood", "--test_only"], "--eval_on IN OUT"),
        (["--calibrator", "nothing.pth", "--test_only"], "nothing.pth does not exist"),
        (["--ood_classes", "idd:x"], "no label id; write 8 or idd:8"),
        (["--ood_classes", "iddd:8"], "no data set is called iddd"),
        (["--confidence", "mutual_information"], "--confidence mutual_information compares"),
        (["--ece_confidence", "energy"], "no score is called 'energy'"),
        (["--external", "a:b"], "--ckpt and --external both name the network"),
        (["--logits_dir", "nowhere"], "both name the network"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_any_work(
    argv, message, network, tmp_path, capsys
):
    action = [] if "--test_only" in argv else ["--fit_calibrator", "temperature"]
    with pytest.raises(SystemExit) as stopped:
        main(using(network, tmp_path, *action, *argv))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--samples_per_image", "2241"], "requested 2241 pixels, image 0016E5_f0000"),
        (["--fit_calibrator", "cluster", "--n_clusters", "7"], "7 clusters"),
        (["--scenes", "Seq99"], "Seq99"),
    ],
)
def test_data_that_cannot_be_fitted_is_explained(argv, message, network, tmp_path, caplog):
    base = ["--fit_calibrator", "temperature", "--samples_per_image", 100]
    assert main(using(network, tmp_path, *base, *argv)) == 1
    assert message in caplog.text
    assert not (tmp_path / "checkpoints").exists()


def test_void_images_alone_give_a_temperature_of_one_and_no_numbers(
    network, tmp_path, data, caplog
):
    root = tmp_path / "void"
    for folder in ("val", "valannot", "test", "testannot"):
        (root / folder).mkdir(parents=True)
        for number in range(2):
            value = 11 if folder.endswith("annot") else 90
            shape = SIZE if folder.endswith("annot") else (*SIZE, 3)
            stem = f"{'0016E5' if folder.startswith('val') else 'Seq05VD'}_f{number:05d}"
            cv2.imwrite(str(root / folder / f"{stem}.png"), np.full(shape, value, np.uint8))
    argv = ["--fit_calibrator", "temperature", "--samples_per_image", 100, "--run_name", "t"]
    assert main(using(network, tmp_path, *argv, data=root)) == 0
    calibrator, _ = load_calibrator(tmp_path / "checkpoints" / "calibrator_t.pth")
    assert calibrator.value == 1.0
    argv = ["--test_only", "--metrics", *METRICS, "--run_name", "r", "--val_split", "test"]
    assert main(using(network, tmp_path, *argv, data=root)) == 0
    total = result(tmp_path, "r")["results"]["total"]
    assert total["calibration"]["pixels"] == 0
    assert total["calibration"]["ece"] is None
    assert total["misclassification"]["msp"]["prr"] is None
    assert "no labelled pixel" in caplog.text
