import csv
import io
import re
import sys

import numpy as np
import pytest
from PIL import Image

from engine.reporting import NOT_TOLD_APART, OF_TRAINING
from tests.utils.result_files import (
    ROAD_NAMES,
    image_ood_of,
    reliability_of,
    scores_of,
    write_result,
)
from utils.files import WriteError
from utils.report import reliability_table, results_table, save_reliability_pictures
from utils.report.analysis import analyse
from utils.report.latex import as_latex, escape_latex
from utils.report.measures import blocks_of, numbers_of, parts_of, scores_in
from utils.report.page import as_html
from utils.report.reliability_layout import report_pictures
from utils.report.reliability_panels import pooled_bins
from utils.report.results import find_results, read_results
from utils.report.text import as_csv, as_text
from utils.report.unknown_layout import unknown_pictures

FITTED = {"dataset": "cityscapes", "split": "val", "images": 9}


def rows_of(folder):
    return [
        row
        for path in find_results([str(folder)])
        for row in read_results(path, NOT_TOLD_APART, OF_TRAINING)
    ]


def part(seed=1, **settings):
    iou = dict.fromkeys(ROAD_NAMES, 60.0)
    return scores_of(iou, 100) | reliability_of(seed, **settings)


@pytest.fixture(scope="module")
def joined():
    """One evaluation over two data sets, one of them in two conditions."""
    return {
        "total": part(1, ood=True) | {"intervals": {"calibration.ece": [1.25, 2.5]}},
        "dataset": {"cityscapes": part(2, ood=True), "acdc": part(3, sharpness=3)},
        "condition": {"cityscapes/": part(2), "acdc/fog": part(4), "acdc/night": part(5)},
        "member": {"deeplabv3plus_mobilenet": part(6)},
        "image_ood": image_ood_of("cityscapes", "acdc"),
    }


def cells(table, start):
    line = next(line for line in table.splitlines() if line.startswith(start + " "))
    return re.split(r"\s{2,}", line)[1:]


def test_every_part_has_a_row_and_a_sole_condition_none(joined):
    assert list(parts_of(joined)) == [
        *("all", "cityscapes", "acdc", "acdc/fog", "acdc/night", "mobilenet")
    ]
    alone = {"total": {}, "condition": {"": {"a": 1}, "fog": {"a": 2}}}
    assert list(parts_of(alone)) == ["all", "no condition", "fog"]
    header = results_table(joined, ROAD_NAMES).splitlines()[0]
    assert "IoU acdc/fog" in header
    assert "cityscapes/" not in header


def test_the_console_shows_the_numbers_with_units_and_intervals(joined):
    calibration, errors, unknown, images = reliability_table(joined).split("\n\n")
    found = joined["dataset"]["acdc"]["calibration"]
    shown = [f"{found[name]:.2f}" for name in ("ece", "ece_equal_mass", "ks_error")]
    assert cells(calibration, "acdc") == [
        *shown,
        *(f"{found[name]:.3f}" for name in ("nll", "brier")),
    ]
    assert cells(calibration, "all")[0].endswith(" [1.25, 2.50]")
    heading = " ".join(calibration.splitlines()[0].split())
    assert heading == "ECE ECE equal KS NLL Brier"
    assert calibration.splitlines()[1].split()[-2:] == ["nats", "score"]
    found = joined["condition"]["acdc/fog"]["misclassification"]["msp"]
    assert cells(errors, "acdc/fog") == [
        f"{found[name]:.2f}" for name in ("prr", "auroc", "aurc", "fpr95")
    ]
    assert [line.split()[0] for line in unknown.splitlines()[3:]] == [
        *("all", "msp", "cityscapes", "msp")
    ]
    assert "cityscapes against" in images
    assert cells(images, "acdc") == ["8", "90.00", "87.00", "88.00", "40.00"]


def test_the_console_says_nothing_without_reliability():
    total = scores_of(dict.fromkeys(ROAD_NAMES, 60.0), 100)
    assert reliability_table({"total": total}) == ""


def test_image_level_detection_may_stand_alone(tmp_path):
    results = {"image_ood": image_ood_of("cityscapes", "acdc")}
    assert cells(reliability_table(results), "acdc")[0] == "8"
    assert save_reliability_pictures(results, tmp_path, "a") == []


def test_undefined_numbers_are_no_zeros():
    content = part()
    content["calibration"] |= {"ece": None, "nll": None}
    table = reliability_table({"total": content})
    assert cells(table, "all")[0] == "n/a"
    assert cells(table, "all")[3] == "n/a"
    assert "nan" not in table


def test_published_variants_get_columns_where_they_are():
    content = part()
    content["misclassification"]["msp"]["prr_original"] = 12.3456
    table = reliability_table({"total": content}).split("\n\n")[1]
    assert table.split().count("original") == 1
    assert cells(table, "all")[-1] == "12.35"
    assert "original" not in reliability_table({"total": part()})


def test_patches_have_a_table_of_their_own():
    shares = {"accurate_given_certain": 99.0, "uncertain_given_inaccurate": 90.5, "pavpu": 55.125}
    content = part() | {"pavpu": {"msp": {"patches": 7, "curve": {"threshold": [0.1]}, **shares}}}
    table = reliability_table({"total": content}).split("\n\n")[2]
    assert table.splitlines()[0].startswith("Accuracy and uncertainty of patches")
    assert cells(table, "all") == ["99.00", "90.50", "55.12"]
    assert "pavpu.msp.patches" not in numbers_of(content)


def test_numbers_by_path_hold_neither_counts_nor_curves():
    numbers = numbers_of(part(ood=True))
    assert numbers["calibration.class_ece.road"] == 1.0
    assert numbers["calibration.class_ece.train"] is None
    assert "misclassification.msp.risk_at_coverage.80" in numbers
    assert not [path for path in numbers if re.search("pixels|curve|edges|diagram", path)]
    assert [block.prefix for block in blocks_of([numbers])] == [
        "calibration",
        "misclassification.msp",
    ]
    assert scores_in(numbers) == ["msp"]


def test_pictures_are_written_where_there_is_something_to_draw(joined, tmp_path):
    paths = save_reliability_pictures(joined, tmp_path / "new", "a network on two data sets")
    assert sorted(path.name for path in paths) == [
        *("confidence_histogram_msp.png", "ood_histogram.png", "ood_histogram_msp.png"),
        *("ood_roc_pr.png", "ood_roc_pr_msp.png"),
        *("reliability_diagram.png", "risk_coverage_msp.png", "roc_pr_msp.png"),
    ]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 500
            assert image.info["Software"] == "SegDoubt picture"
            colours = image.convert("RGB").getcolors(1 << 24)
        assert len(colours) > 50
        assert path.stat().st_size > 20_000
    total = scores_of(dict.fromkeys(ROAD_NAMES, 60.0), 100)
    assert save_reliability_pictures({"total": total}, tmp_path / "none", "a") == []
    assert not (tmp_path / "none").exists()


def test_pictures_follow_the_numbers_and_need_no_pyplot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    results = {"total": {"calibration": reliability_of(1)["calibration"]}}
    images = []
    for name in "abc":
        if name == "c":
            results["total"]["calibration"]["diagram"]["accuracy"][-1] = 10.0
        (path,) = save_reliability_pictures(results, tmp_path / name, "a")
        images.append(np.asarray(Image.open(path)))
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.filterwarnings("error")
def test_pictures_of_what_is_undefined_or_empty(tmp_path):
    content = reliability_of(1, ood=True)
    content["calibration"] |= {"ece": None, "mce": None, "ks_error": None}
    content["calibration"]["diagram"] = {
        "count": [0] * 15,
        "confidence": [None] * 15,
        "accuracy": [None] * 15,
    }
    content["misclassification"]["msp"] |= {
        **{"roc": {"fpr": [], "tpr": []}, "pr": {"recall": [], "precision": []}},
        **{"auroc": None, "prr": None, "curve": {"coverage": [100.0], "risk": [0.0]}},
    }
    content["ood"]["msp"] |= {"roc": None, "histogram": None}
    names = {path.name for path in save_reliability_pictures({"total": content}, tmp_path, "a")}
    assert names == {
        "reliability_diagram.png",
        "risk_coverage_msp.png",
        "confidence_histogram_msp.png",
    }


def test_many_parts_are_cut_and_the_picture_says_so(tmp_path):
    from utils.report.reliability import reliability_figures

    content = [reliability_of(1)]
    named = {f"condition{index}": content for index in range(14)}
    titles = {name: figure.get_suptitle() for name, figure in reliability_figures(named, "a")}
    assert "(the first 12 of 14)" in titles["reliability_diagram"]
    assert "(the first 12 of 14)" in " ".join(titles["risk_coverage_msp"].split())


def test_a_picture_that_cannot_be_written_names_its_path(joined, tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(WriteError, match=r"taken/reliability_diagram\.png"):
        save_reliability_pictures(joined, tmp_path / "taken", "a")


def test_bins_of_several_runs_are_averaged_by_their_pixels():
    bins = pooled_bins(
        [
            {"count": [1, 0, 2], "confidence": [10.0, None, 90.0], "accuracy": [0.0, None, 50.0]},
            {"count": [3, 0, 2], "confidence": [30.0, None, 80.0], "accuracy": [40.0, None, 70.0]},
        ]
    )
    assert bins.pixels.tolist() == [4, 0, 4]
    assert bins.confidence.tolist()[::2] == [25.0, 85.0]
    assert bins.accuracy.tolist()[::2] == [30.0, 60.0]
    assert np.isnan(bins.confidence[1])


@pytest.fixture
def calibrated(tmp_path):
    """Two seeds as they are and with a calibrator of their own each."""
    for seed in (1, 2):
        for kind in (None, "temperature"):
            calibrator = kind and {
                **{"file": f"c{seed}.pth", "kind": kind, "sha256": str(seed)},
                "fitted_on": FITTED,
            }
            write_result(
                tmp_path,
                seed=seed,
                name=f"{seed}{kind}",
                calibrator=calibrator,
                testing={"calibrator": calibrator and calibrator["file"]},
                reliability=reliability_of(seed, sharpness=1.0 if kind else 2.5, ood=True),
            )
    return tmp_path


def test_a_calibrator_parts_groups_by_its_kind_and_not_by_its_file(calibrated):
    report = analyse(rows_of(calibrated))
    groups = {summary.group.label: summary.group.seeds for summary in report.summaries}
    assert groups == {
        "cross_entropy, calibrator off": ("1", "2"),
        "cross_entropy, calibrator temperature (cityscapes val)": ("1", "2"),
    }


@pytest.mark.parametrize("fitted", ["cityscapes val", ["cityscapes", "acdc"], None])
def test_what_a_calibrator_was_fitted_on_may_be_words(tmp_path, fitted):
    write_result(tmp_path, calibrator={"file": "c", "kind": "local", "fitted_on": fitted})
    (row,) = rows_of(tmp_path)
    expected = {"cityscapes val": "local (cityscapes val)", None: "local"}
    wanted = "local (cityscapes + acdc)" if isinstance(fitted, list) else expected[fitted]
    assert row.flags["calibrator"] == wanted


def test_settings_of_a_fit_tell_calibrators_apart(tmp_path):
    for clusters in (4, 8):
        flags = {"n_clusters": clusters, "random_seed": clusters}
        calibrator = {"file": "c", "kind": "cluster", "fitted_on": FITTED, "flags": flags}
        write_result(tmp_path, name=str(clusters), calibrator=calibrator)
    labels = [summary.group.label for summary in analyse(rows_of(tmp_path)).summaries]
    assert labels == [
        "cross_entropy, calibrator cluster (cityscapes val; n_clusters 4)",
        "cross_entropy, calibrator cluster (cityscapes val)",  # 8 is usual
    ]


def test_flags_that_came_later_do_not_part_old_and_new_results(tmp_path):
    write_result(tmp_path, seed=1)
    later = {"ece_bins": 15, "confidence": ["msp"], "parity": "none", "n_clusters": 8}
    write_result(tmp_path, seed=2, testing=later, training=later)
    assert len(analyse(rows_of(tmp_path)).summaries) == 1
    write_result(tmp_path, seed=2, testing={"ece_bins": 10})
    assert len(analyse(rows_of(tmp_path)).summaries) == 2


def test_the_report_has_means_and_deviations_over_seeds(calibrated):
    report = analyse(rows_of(calibrated))
    text = as_text(report)
    values = [
        reliability_of(seed, sharpness=2.5, ood=True)["calibration"]["ece"] for seed in (1, 2)
    ]
    cell = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    row = next(
        line for line in text.split("Reliability\n===")[1].splitlines() if "calibrator off" in line
    )
    assert row.split("2  ", 1)[1].lstrip().startswith(cell)
    unknown = "Unknown objects by score on acdc val, %"
    for title in ("Calibration", "Misclassification by msp", unknown):
        assert f"\n{title}\n" in text
        assert escape_latex(title) in as_latex(report)
        assert f"<h3>{title}</h3>" in as_html(report)
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    (found,) = [r for r in rows if r["metric"] == "calibration.ece" and r["group"].endswith(" off")]
    assert float(found["mean"]) == pytest.approx(np.mean(values), rel=1e-5)
    assert (found["n"], found["interval"]) == ("2", "seeds")
    (undefined, _) = [
        r for r in rows if (r["metric"], r["class"])[1] == "train" and "ece" in r["metric"]
    ]
    assert (undefined["metric"], undefined["mean"]) == ("calibration.class_ece", "")


def test_a_single_run_has_the_intervals_of_its_file(tmp_path):
    own = reliability_of(1) | {"intervals": {"calibration.ece": [1.5, 9.25], "miou": [1, 2]}}
    write_result(tmp_path, reliability=own)
    report = analyse(rows_of(tmp_path))
    ece = report.summaries[0].numbers["calibration.ece"]
    assert (ece.low, ece.high) == (1.5, 9.25)
    assert "[1.50, 9.25]" in as_text(report)
    rows = csv.DictReader(io.StringIO(as_csv(report)))
    (found,) = [row for row in rows if row["metric"] == "calibration.ece"]
    assert (found["low"], found["high"], found["interval"]) == ("1.5", "9.25", "images")


def test_wide_tables_lose_their_intervals_in_the_text_only(tmp_path):
    own = reliability_of(1)
    names = ("ece", "ece_equal_mass", "ks_error", "nll", "brier")
    paths = [f"calibration.{name}" for name in names]
    write_result(tmp_path, reliability=own | {"intervals": {path: [1.11, 22.22] for path in paths}})
    report = analyse(rows_of(tmp_path))
    assert "[1.11, 22.22]" not in as_text(report)
    assert as_html(report).count("[1.11, 22.22]") == 3
    assert "[1.110, 22.220]" in as_html(report)


def test_a_joined_file_has_rows_for_the_whole_each_data_set_and_condition(tmp_path):
    write_result(
        tmp_path,
        tested_on="cityscapes+acdc",
        split="val",
        datasets={"cityscapes": reliability_of(2), "acdc": reliability_of(3)},
        conditions=["cityscapes/", "acdc/fog", "acdc/night"],
        reliability=reliability_of(1),
        image_ood=image_ood_of("cityscapes", "acdc"),
    )
    rows = {row.facts.tested_on: row for row in rows_of(tmp_path)}
    assert {text: (row.subset, row.dataset, row.joined) for text, row in rows.items()} == {
        "cityscapes+acdc val": ("", "cityscapes+acdc", True),
        "cityscapes val": ("cityscapes", "cityscapes", False),
        "acdc val": ("acdc", "acdc", False),
        "acdc val fog": ("acdc/fog", "acdc", False),
        "acdc val night": ("acdc/night", "acdc", False),
    }
    assert [row.test_images for row in rows.values()] == [4, None, None, None, None]
    assert all(row.images is None for row in rows.values())
    ece = {text: row.numbers.get("calibration.ece") for text, row in rows.items()}
    assert ece["acdc val"] == reliability_of(3)["calibration"]["ece"]
    assert ece["acdc val fog"] is None
    assert rows["cityscapes+acdc val"].numbers["image_ood.msp.cityscapes against acdc.auroc"] == 90
    text = as_text(analyse(list(rows.values())))
    assert "also by acdc, acdc/fog, acdc/night, cityscapes" in " ".join(text.split())
    assert "Out of distribution, images by msp: cityscapes against acdc" in text
    assert "Of data sets of a joined test set, of conditions" in " ".join(text.split())


@pytest.mark.parametrize(
    ("parts", "split", "expected"),
    [
        (None, "val+test", ["cityscapes val", "acdc test"]),
        (None, "a+b+c", ["cityscapes a+b+c", "acdc a+b+c"]),
        (["cityscapes,split=x,root=/d", "acdc,split=y"], "x+y", ["cityscapes x", "acdc y"]),
        (
            ["acdc,condition=fog", "cityscapes,scene=a+b"],
            "val",
            ["cityscapes val a+b", "acdc val fog"],
        ),
        (
            ["acdc,split=x", "acdc,split=y", "cityscapes,split=y"],
            "x+y",
            ["cityscapes y", "acdc x+y"],
        ),
        (
            [
                {"name": "cityscapes", "split": "x", "images": 3, "fingerprint": "1"},
                {"name": "acdc", "split": "y", "scenes": list("abcd")},
            ],
            "x+y",
            ["cityscapes x", "acdc y 4 of them"],
        ),
    ],
)
def test_the_data_sets_of_a_joined_file_have_their_own_splits(tmp_path, parts, split, expected):
    write_result(
        tmp_path,
        tested_on="cityscapes+acdc",
        split=split,
        parts=parts,
        datasets={"cityscapes": {}, "acdc": {}},
    )
    rows = rows_of(tmp_path)[1:]
    assert [row.facts.tested_on for row in rows] == expected
    known = parts and isinstance(parts[0], dict)
    assert rows[0].test_images == (3 if known else None)
    assert rows[0].fingerprint == ("1" if known else "f" * 64)


def test_the_folder_of_a_part_does_not_part_a_group(tmp_path):
    for seed in (1, 2):
        write_result(tmp_path, seed=seed, testing={"eval_on": [f"acdc,root=/d{seed},split=val"]})
    (summary,) = analyse(rows_of(tmp_path)).summaries
    assert summary.group.results[0].flags["test eval_on"] == ["acdc,split=val"]


def test_the_page_shows_the_pictures_of_the_groups(calibrated):
    report = analyse(rows_of(calibrated))
    pictures = [*report_pictures(report), *unknown_pictures(report)]
    assert [picture.name for picture in pictures] == [
        *("reliability_diagram", "risk_coverage_msp", "roc_pr_msp"),
        *("confidence_histogram_msp", "ood_roc_pr_msp", "ood_histogram_msp"),
    ]
    page = as_html(report, pictures)
    labels = re.findall(r'aria-label="([^"]*)"', page)
    assert "reliability diagram, trained on acdc, tested on acdc val" in labels
    assert page.count("<svg") == page.count("</svg>") == 6 + as_html(report).count("<svg")
    assert "pattern" in page
    assert set(re.findall(r"url\((.)", page)) == {"#"}
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_pictures_of_several_test_sets_have_names_of_their_own(tmp_path):
    for tested in ("acdc", "cityscapes", "idd", "bdd"):
        write_result(tmp_path, tested_on=tested, reliability=reliability_of(1))
    report = analyse(rows_of(tmp_path))
    names = [picture.name for picture in report_pictures(report)]
    assert "reliability_diagram_acdc_on_bdd_val" in names
    assert "robustness" in names
    assert len(names) == len(set(names)) == 1 + 3 * 4
    assert "Pictures are drawn of the first 3 of 4 test sets." in " ".join(as_text(report).split())
