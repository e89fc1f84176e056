import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from engine.reporting import NOT_TOLD_APART, OF_TRAINING
from tests.utils.result_files import META, ROAD_NAMES, scores_of, search_of, write_result
from utils.report import reliability_table, save_reliability_pictures
from utils.report.analysis import Bootstrap, analyse
from utils.report.latex import as_latex
from utils.report.page import as_html
from utils.report.results import find_results, read_results
from utils.report.text import as_csv, as_text
from utils.report.unknown_layout import unknown_pictures, unknown_tables

COSINE = {"head": "cosine", "temperature": "learned"}
COSINE_NAME = "cross_entropy, cosine, learned temperature"
SCORES = ("abet", "odin+msp", "max_logit@mean_logit")
TWELVE = (*SCORES, *(f"score_{index}" for index in range(9)))


def report_on(folder, **settings):
    rows = [
        row
        for path in find_results([str(folder)])
        for row in read_results(path, NOT_TOLD_APART, OF_TRAINING)
    ]
    return analyse(rows, **settings)


def write_search(folder, *, tested_on="road_anomaly", scores=SCORES, part=None, **settings):
    """A result without class labels, of 19 classes that the network knows."""
    return write_result(
        folder,
        tested_on=tested_on,
        split="test",
        segmented=False,
        fingerprint=tested_on,
        name=f"{tested_on}{settings}",
        reliability=part or search_of(settings.get("seed", 1), scores),
        **settings,
    )


@pytest.fixture
def networks(tmp_path):
    """Two networks with two seeds each: mIoU on acdc, two test sets of unknown objects."""
    for seed in (1, 2):
        for training in ({}, COSINE):
            write_result(tmp_path, seed=seed, training=training, name=f"{seed}{training}")
            for tested_on in ("road_anomaly", "lost_and_found"):
                write_search(tmp_path, tested_on=tested_on, seed=seed, training=training)
    return tmp_path


def table_of(report, **settings):
    (table,) = unknown_tables(report.unknown, **settings)
    return table


def test_a_search_without_classes_is_a_row_of_the_papers_table(networks):
    report = report_on(networks)
    first, second = unknown_tables(report.unknown)
    assert first.title == "Unknown objects by score on lost_and_found test, %"
    numbers = ("FPR95", "AUPRC", "AUROC", "F1*", "sIoU", "PPV")
    assert first.header == ["", "n", "mIoU\nacdc val", *numbers]
    indented = [f"  {score}" for score in SCORES]
    names = [row[0] for row in second.rows]
    assert names == ["cross_entropy", *indented, COSINE_NAME, *indented]
    found = [search_of(seed, SCORES) for seed in (1, 2)]
    row = second.rows[2]
    for place, (kind, key) in enumerate(
        (
            *(("ood", key) for key in ("fpr95", "aupr_out", "auroc")),
            *(("components", key) for key in ("f1", "siou", "ppv")),
        )
    ):
        values = [part[kind]["odin+msp"][key] for part in found]
        cell = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        assert row[3 + place] == cell, key
    means = [summary.scores["miou"] for summary in report.segmented if not summary.group.facts.part]
    assert row[2] == f"{means[0].mean:.2f} ± {means[0].std:.2f}"
    assert row[1] == "2"


def test_tests_stand_side_by_side_where_that_is_not_too_wide(tmp_path):
    for tested_on in ("road_anomaly", "lost_and_found"):
        part = search_of(1, SCORES, components=False)
        write_search(tmp_path, tested_on=tested_on, part=part)
    write_search(tmp_path, part=search_of(2, ("abet",), components=False), training=COSINE)
    table = table_of(report_on(tmp_path))
    assert table.header[2:] == [
        f"{test} test\n{name}"
        for test in ("lost_and_found", "road_anomaly")
        for name in ("FPR95", "AUPRC", "AUROC")
    ]
    assert table.rows[-1][:5] == ["  abet", "1", "", "", ""], "never tested on LostAndFound"
    assert "n/a" not in " ".join(table.rows[-1])
    assert len(unknown_tables(report_on(tmp_path).unknown, apart=True)) == 2


def test_the_miou_is_that_of_the_same_checkpoints(tmp_path):
    for seed in (1, 2, 3):
        write_search(tmp_path, seed=seed)
    write_result(tmp_path, seed=1, iou=dict.fromkeys(ROAD_NAMES, 40.0))
    write_result(tmp_path, seed=2, iou=dict.fromkeys(ROAD_NAMES, 50.0))
    write_result(tmp_path, seed=9, iou=dict.fromkeys(ROAD_NAMES, 90.0))  # another checkpoint
    row = table_of(report_on(tmp_path)).rows[1]
    assert row[2] == "45.00 ± 7.07 (n 2)"
    # where both say it, the data set of the training does
    for seed in (1, 2, 3):
        write_result(tmp_path, seed=seed, tested_on="aachen", iou=dict.fromkeys(ROAD_NAMES, 7.0))
    table = table_of(report_on(tmp_path))
    assert (table.header[2], table.rows[1][2]) == ("mIoU\nacdc val", "45.00 ± 7.07 (n 2)")


def test_without_any_segmentation_there_is_no_miou_and_no_section(tmp_path):
    write_search(tmp_path)
    report = report_on(tmp_path, bootstrap=Bootstrap(10, 1))
    assert report.sections == []
    assert "mIoU" not in "".join(table_of(report).header)
    text = as_text(report)
    assert "mIoU" not in text
    assert "Overview" not in text
    assert "\nUnknown objects\n===" in text
    assert "1 result in 1 group" in text
    assert str(report.unsegmented[0].group.results[0].path) in text


def test_every_form_of_the_report_has_the_table(networks):
    report = report_on(networks)
    text, page, latex = as_text(report), as_html(report), as_latex(report)
    title = "Unknown objects by score on road_anomaly test, %"
    assert title in text
    assert f"<h3>{title}</h3>" in page
    assert r"\caption{Unknown objects by score on road\_anomaly test, \%}" in latex
    assert r"\quad odin+msp & 2 &" in latex
    assert r"\quad max\_logit@mean\_logit & 2 &" in latex
    assert "<h2>Unknown objects</h2>" in page
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    chosen = [
        row
        for row in rows
        if row["group"].startswith(COSINE_NAME) and "road_anomaly" in row["group"]
    ]
    numbers = {row["metric"]: float(row["mean"]) for row in chosen}
    found = [search_of(seed, SCORES) for seed in (1, 2)]
    for kind, key in (("ood", "aupr_out"), ("components", "siou")):
        mean = np.mean([part[kind]["abet"][key] for part in found])
        assert numbers[f"{kind}.abet.{key}"] == pytest.approx(mean, rel=1e-5)
    assert numbers["components.abet.tp.50"] == 5
    assert "miou" not in numbers


def test_a_single_run_has_the_intervals_of_its_file(tmp_path):
    part = search_of(1, ("abet",)) | {"intervals": {"ood.abet.fpr95": [1.25, 2.5]}}
    write_search(tmp_path, part=part)
    assert table_of(report_on(tmp_path)).rows[1][2].endswith(" [1.25, 2.50]")
    narrow = table_of(report_on(tmp_path), intervals=False, digits=1).rows[1][2]
    assert narrow == f"{part['ood']['abet']['fpr95']:.1f}"


def test_texts_choose_the_widest_form_that_fits(tmp_path):
    for seed in (1, 2):
        write_result(tmp_path, seed=seed)
        for tested_on in ("road_anomaly", "lost_and_found"):
            write_search(tmp_path, tested_on=tested_on, seed=seed, scores=("abet", "odin+msp"))
    text = as_text(report_on(tmp_path)).split("\nUnknown objects\n")[1].split("\nReliability")[0]
    rows = [line for line in text.splitlines() if re.match(r"  (abet|odin\+msp) ", line)]
    assert len(rows) == 2 * 2
    assert max(map(len, rows)) <= 100
    assert all(re.search(r"\d\.\d ±", row) for row in rows), "one decimal"
    alone = tmp_path / "alone"
    write_search(alone, scores=("abet",))
    assert re.search(r"\n  abet +1 +\d+\.\d\d  ", as_text(report_on(alone))), "two decimals"


def test_objects_without_pixels_can_be_reported(tmp_path):
    part = search_of(1, ("abet",))
    for seed in (1, 2):
        write_search(tmp_path, seed=seed, part={"components": part["components"]})
    report = report_on(tmp_path)
    assert table_of(report).header[2:] == ["F1*", "sIoU", "PPV"]
    assert list(unknown_pictures(report)) == []
    write_search(tmp_path, seed=3, part=part)
    assert len(report_on(tmp_path).unsegmented) == 1, "unknown numbers of pixels do not differ"


def test_what_undefined_numbers_look_like(tmp_path):
    part = search_of(1, ("abet",))
    part["ood"]["abet"] |= {"auroc": None, "roc": None, "histogram": None, "tpr95_threshold": None}
    part["components"]["abet"] |= {"siou": None}
    write_search(tmp_path, part=part)
    report = report_on(tmp_path)
    row = table_of(report).rows[1]
    assert (row[4], row[6]) == ("n/a", "n/a")
    assert list(unknown_pictures(report)) == []


def test_a_result_with_neither_classes_nor_unknown_objects_is_refused(tmp_path):
    path = write_search(tmp_path, part={"calibration": {"ece": 1.0}})
    with pytest.raises(ValueError, match=r"with the metric segmentation, ood or components"):
        report_on(tmp_path)
    content = json.loads(path.read_text())
    content["results"] = {}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"json is not a result of --test_only"):
        report_on(tmp_path)


def test_members_that_were_not_searched_are_no_rows(tmp_path):
    path = write_search(tmp_path)
    content = json.loads(path.read_text())
    content["results"]["member"] = {"resnet50": {"calibration": {"ece": 1.0}}}
    path.write_text(json.dumps(content))
    assert len(report_on(tmp_path).summaries) == 1


def test_a_search_beside_classes_is_in_both(tmp_path):
    write_result(tmp_path, reliability=search_of(1, SCORES))
    report = report_on(tmp_path)
    assert report.unsegmented == []
    assert len(report.sections) == 1
    assert report.unknown.tests == ("acdc val",)
    assert "by abet" not in as_text(report), "one table, not one for each score"


def test_heads_part_networks_and_are_named(tmp_path):
    temperature = {"temperature": "learned"}
    usual = {"head": "linear", "temperature": "none", "temperature_floor": 1e-3}
    for seed, training in ((1, {}), (2, usual), (1, temperature), (1, COSINE)):
        write_result(tmp_path, seed=seed, training=training, name=f"{seed}{training}")
    report = report_on(tmp_path)
    assert {s.group.label: len(s.group.results) for s in report.summaries} == {
        "cross_entropy": 2,  # an older file lacks the flags
        "cross_entropy, learned temperature": 1,
        COSINE_NAME: 1,
    }
    compared = {
        entry.method.group.label: entry.baseline.group.label
        for section in report.sections
        for entry in section.comparisons
    }
    assert compared == dict.fromkeys(
        ("cross_entropy, learned temperature", COSINE_NAME), "cross_entropy"
    )
    assert "head: linear -> cosine; temperature: none -> learned" in as_text(report)


def test_a_head_without_a_record_is_what_the_test_was_told(tmp_path):
    write_result(tmp_path, recorded=False, testing=COSINE)
    (summary,) = report_on(tmp_path).summaries
    assert summary.group.facts.method == "loss not recorded, cosine, learned temperature"


@pytest.mark.parametrize(
    ("flag", "groups"),
    [("ood_score", 1), ("ood_threshold", 1), ("score_statistics", 1), ("score_norm", 2)],
)
def test_flags_of_the_measurement(tmp_path, flag, groups):
    for seed in (1, 2):
        write_search(tmp_path, seed=seed, testing={flag: f"value{seed}"})
    assert len(report_on(tmp_path).summaries) == groups


@pytest.mark.parametrize(
    "flag", ["class_uniform_pct", "coarse_boost_classes", "border_window", "temperature_floor"]
)
def test_flags_of_the_training(tmp_path, flag):
    for seed in (1, 2):
        write_search(tmp_path, seed=seed, training={flag: f"value{seed}"})
    assert len(report_on(tmp_path).summaries) == 2
    for seed in (3, 4):
        write_search(tmp_path, seed=seed, testing={flag: f"value{seed}"})
    assert len(report_on(tmp_path).summaries) == 2 + 1, "a test does not read it"


def test_meta_classification_has_a_table(tmp_path):
    part = search_of(1, ("abet",)) | {"meta_classification": META}
    write_search(tmp_path, part=part)
    report = report_on(tmp_path)
    assert "\nMeta classification of false alarms\n" in as_text(report)
    assert r"\caption{Meta classification of false alarms}" in as_latex(report)
    assert "<h3>Meta classification of false alarms</h3>" in as_html(report)
    assert "Meta" not in as_text(report).split("Unknown objects\n===")[0]
    numbers = report.summaries[0].numbers
    assert numbers["meta_classification.false_positives_after"].mean == 11


def cells(table, start):
    line = next(line for line in table.splitlines() if line.startswith(start))
    return re.split(r"\s{2,}", line)[1:]


def test_the_console_has_a_row_for_each_score():
    total = search_of(1, SCORES) | {"meta_classification": META}
    total["ood"]["abet"] |= {"auroc_original": 12.5, "aupr_original": None}
    pixels, objects, alarms = reliability_table({"total": total}).split("\n\n")
    found = total["ood"]["odin+msp"]
    assert cells(pixels, "odin+msp")[:5] == [
        f"{found[key]:.2f}" for key in ("auroc", "aupr_out", "aupr_in", "fpr95", "f1")
    ]
    assert cells(pixels, "abet ")[5:] == ["n/a", "12.50"]
    assert pixels.split().count("original") == 2
    found = total["components"]["abet"]
    shown = [f"{found[key]:.2f}" for key in ("f1", "siou", "ppv")]
    assert cells(objects, "abet ") == [*shown, "12", "5", "20", "6", "-2.5000"]
    assert cells(alarms, "all")[:5] == ["40", "30", "11", "4", "5"]
    assert "calibration" not in pixels.lower()


def test_the_console_shows_parts_and_intervals():
    total = search_of(1, ("abet",), components=False)
    total["intervals"] = {"ood.abet.fpr95": [1.25, 2.5]}
    night = search_of(2, ("abet",), components=False)
    table = reliability_table({"total": total, "condition": {"night": night, "fog": {"a": 1}}})
    lines = [line.split()[0] for line in table.splitlines()[3:]]
    assert lines == ["all", "abet", "night", "abet"]
    assert "[1.25, 2.50]" in table.splitlines()[4]
    assert "[" not in table.splitlines()[6]


def sizes(paths):
    found = {}
    for path in paths:
        with Image.open(path) as image:
            found[path.name] = image.size
    return found


def test_pictures_of_a_test_show_all_scores_at_once(tmp_path):
    total = search_of(1, TWELVE) | scores_of(dict.fromkeys(ROAD_NAMES, 60.0), 100)
    few = sizes(save_reliability_pictures({"total": search_of(1, SCORES)}, tmp_path / "a", "x"))
    many = sizes(save_reliability_pictures({"total": total}, tmp_path / "b", "x"))
    assert list(few) == list(many) == ["ood_roc_pr.png", "ood_histogram.png"]
    assert many["ood_histogram.png"][1] > 2 * few["ood_histogram.png"][1], "three rows of panels"
    parts = {"night": search_of(2, SCORES), "fog": search_of(3, SCORES[:1])}
    several = {"total": search_of(1, SCORES), "condition": parts}
    named = sizes(save_reliability_pictures(several, tmp_path / "c", "x"))
    assert {"ood_roc_pr.png", "ood_roc_pr_abet.png", "ood_histogram_odin+msp.png"} < set(named)


def lines_of(figure):
    return [line for axes in figure.get_axes() for line in axes.get_lines()]


def test_twelve_lines_look_different_and_are_named():
    from utils.report.reliability import unknown_figures

    part = search_of(1, TWELVE)["ood"]
    figures = dict(unknown_figures({name: [found] for name, found in part.items()}, "a"))
    roc = figures["ood_roc_pr"]
    drawn = lines_of(roc)[1:13]  # after the diagonal
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 12
    texts = [text.get_text() for text in roc.legends[0].get_texts()]
    assert [text.partition(":")[0] for text in texts] == list(TWELVE)
    assert f"AUPR {part['abet']['aupr_out']:.2f} %" in texts[0]


def test_the_histogram_has_a_line_at_the_threshold_that_finds_95_percent():
    from utils.report.reliability import unknown_figures

    part = search_of(1, ("abet", "older"))["ood"]
    del part["older"]["tpr95_threshold"]
    figures = dict(unknown_figures({name: [found] for name, found in part.items()}, "a"))
    first, second = figures["ood_histogram"].get_axes()
    (line,) = first.get_lines()
    assert line.get_xdata()[0] == part["abet"]["tpr95_threshold"]
    assert second.get_lines() == []
    texts = [text.get_text() for text in figures["ood_histogram"].legends[0].get_texts()]
    assert texts == ["known pixels", "unknown pixels", "95 % of the unknown found"]
    only = dict(unknown_figures({"older": [part["older"]]}, "a"))["ood_histogram"]
    assert len(only.legends[0].get_texts()) == 2


def test_a_page_has_a_figure_for_each_network_or_for_each_score(networks, tmp_path):
    names = [picture.name for picture in unknown_pictures(report_on(networks))]
    assert len(names) == len(set(names)) == 2 * 2 * 2, "tests, networks, curves and histogram"
    assert "ood_roc_pr_cross_entropy_cosine_learned_temperature_road_anomaly_test" in names
    folder = tmp_path / "one"
    for training in ({}, COSINE, {"lr": 5.0}):
        write_search(folder, training=training, scores=("odin+msp",))
    (curves, histogram) = unknown_pictures(report_on(folder))
    assert [curves.name, histogram.name] == ["ood_roc_pr_odin+msp", "ood_histogram_odin+msp"]
    texts = [text.get_text() for text in curves.figure.legends[0].get_texts()]
    assert len(texts) == 3
    assert curves.heading == "Unknown objects of road_anomaly test"


def test_the_page_shows_curves_and_the_matrix_of_a_test(networks):
    report = report_on(networks)
    path = report.unsegmented[0].group.results[0].path
    path.with_suffix("").mkdir()
    sheet = path.with_suffix("") / "ood_matrix.png"
    Image.new("RGB", (3000, 400), (200, 10, 10)).save(sheet)
    page = as_html(report, list(unknown_pictures(report)))
    section = page.split("<h2>Unknown objects</h2>")[1].split("<h2>")[0]
    assert section.count("<svg") == 8
    assert section.count("data:image/jpeg;base64,") == 1
    assert "images with unknown objects, by score" in section
    sheet.write_bytes(b"no picture")
    page = as_html(report)
    assert "data:image" not in page
    shutil.rmtree(sheet.parent)


def test_conditions_and_several_data_sets_together_are_no_columns(tmp_path):
    datasets = {"cityscapes": search_of(2, SCORES), "acdc": search_of(3, SCORES)}
    write_result(
        tmp_path, tested_on="cityscapes+acdc", reliability=search_of(1, SCORES), datasets=datasets
    )
    assert report_on(tmp_path).unknown.tests == ("acdc val", "cityscapes val")
