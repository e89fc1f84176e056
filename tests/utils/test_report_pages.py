import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from engine.reporting import CAMVID_MINORITY, NOT_TOLD_APART, OF_TRAINING, ROAD_MINORITY
from tests.utils.result_files import ROAD_NAMES, write_result
from utils.report.analysis import Bootstrap, analyse
from utils.report.content import MINORITY
from utils.report.latex import as_latex, escape_latex
from utils.report.page import as_html
from utils.report.results import find_results, read_results
from utils.report.text import as_csv, as_text
from utils.statistics import holm

UCE = "uncertainty_cross_entropy"


def report_on(folder, **settings):
    rows = [
        row
        for path in find_results([str(folder)])
        for row in read_results(path, NOT_TOLD_APART, OF_TRAINING)
    ]
    usual = (ROAD_MINORITY, CAMVID_MINORITY)
    return analyse(rows, **{"usual_minority": usual, **settings})


@pytest.fixture
def three_seeds(tmp_path):
    for seed in (1, 2, 3):
        for loss in ("cross_entropy", UCE):
            write_result(tmp_path, loss=loss, seed=seed)
    return tmp_path


def only_comparison(report):
    (comparison,) = [entry for section in report.sections for entry in section.comparisons]
    return comparison


def test_the_minority_classes_are_tested_with_holms_correction(three_seeds):
    report = report_on(three_seeds)
    entry, family = only_comparison(report), report.sections[0].family
    assert family == ("traffic light", "person", "rider", "motorcycle", "bicycle")
    values = [
        [summary.group.values(name) for summary in (entry.baseline, entry.method)]
        for name in family
    ]
    expected = [stats.ttest_ind(*pair, equal_var=False).pvalue for pair in values]
    found = [entry.differences[name] for name in family]
    assert [d.p for d in found] == pytest.approx(expected)
    assert [d.p_holm for d in found] == pytest.approx(holm(expected))
    assert entry.differences["miou"].p is not None
    assert entry.differences["miou"].p_holm is None
    assert entry.differences["road"].p is None
    assert entry.differences["road"].low is not None


def test_the_mean_of_the_minority_classes_is_a_score_of_its_own(three_seeds):
    report = report_on(three_seeds)
    entry, family = only_comparison(report), report.sections[0].family
    runs = [[result.scores[name] for name in family] for result in entry.method.group.results]
    assert entry.method.group.values(MINORITY) == pytest.approx(np.mean(runs, axis=1))
    rises = [entry.differences[name].value for name in family]
    assert entry.differences[MINORITY].value == pytest.approx(np.mean(rises))
    assert entry.differences[MINORITY].p is not None
    assert entry.differences[MINORITY].p_holm is None


@pytest.mark.parametrize("minority", [["bus"], list(ROAD_NAMES)], ids=["one class", "all"])
def test_a_minority_whose_mean_says_nothing_new_has_none(three_seeds, minority):
    report = report_on(three_seeds, minority=minority)
    assert MINORITY not in report.sections[0].means
    assert "minority mIoU" not in as_text(report)


def test_other_families(three_seeds):
    (section,) = report_on(three_seeds, minority=["bus", "wall"]).sections
    assert section.family == ("wall", "bus")
    assert report_on(three_seeds, usual_minority=()).sections[0].family == ROAD_NAMES
    with pytest.raises(ValueError, match="'tram' is no class here; there are road, sidewalk"):
        report_on(three_seeds, minority=["tram"])


def test_the_text_says_what_a_reader_has_to_know(three_seeds):
    text = as_text(report_on(three_seeds))
    flat = " ".join(text.split())
    assert "corrected over the 5 classes tested: traffic light, person, rider" in flat
    assert "WARNING: With n = 3 seeds a p-value proves nothing either way" in flat
    assert text.index("WARNING") < text.index("Overview") < text.index("Scores")
    assert "arXiv 2407.12609" in flat
    assert "Flags that differ: loss_type: cross_entropy -> uncertainty_cross_entropy" in flat
    tables = [line for line in text.splitlines() if ".json" not in line]
    assert max(map(len, tables)) <= 100
    row = next(line for line in text.splitlines() if line.startswith("person"))
    column = r" +\d+\.\d\d ± \d\.\d\d +\[\d+\.\d\d, \d+\.\d\d\]"
    assert re.fullmatch(rf"person{column} +43\.00{column} +49\.00", row)


def test_the_tested_classes_come_first_and_apart(three_seeds):
    lines = as_text(report_on(three_seeds)).split("Scores")[1].splitlines()
    names = [line.split("  ")[0] for line in lines]
    start = names.index("traffic light")
    assert names[start : start + 5] == ["traffic light", "person", "rider", "motorcycle", "bicycle"]
    assert set(names[start + 5]) == {"-"}
    assert names[start + 6] == "road"


def test_what_rose_and_what_fell_stand_side_by_side(tmp_path):
    for seed, noise in ((1, 0.0), (2, 0.1), (3, 0.2)):
        before = dict.fromkeys(ROAD_NAMES, 50 + noise)
        write_result(tmp_path, seed=seed, iou=before)
        after = {**before, "person": 60 + noise, "road": 40 + noise, "rider": 40 + noise}
        write_result(tmp_path, seed=seed, loss=UCE, iou=after)
    flat = " ".join(as_text(report_on(tmp_path)).split())
    assert (
        "Interval above zero: person; below zero: rider, road; around zero: 16 of 19 classes."
        in flat
    )


def test_like_members_and_conditions_are_shown_by_their_means(tmp_path):
    for seed in (1, 2):
        for loss in ("cross_entropy", UCE):
            common = {"seed": seed, "loss": loss}
            members = [f"deeplabv3plus_mobilenet-{place}" for place in (1, 2, 3)]
            write_result(tmp_path, model="ensemble", members=members, **common)
            write_result(tmp_path, conditions=("fog", "night"), **common)
    report = report_on(tmp_path)
    text = as_text(report)
    assert "tested on acdc val (4 images), also by fog, night" in text
    overview, rest = text.split("=\n\nScores", maxsplit=1)
    assert "Trained on acdc, tested on acdc val fog" in overview
    assert "acdc val fog" not in rest.split("How to read this")[0]
    assert "    cross_entropy" in rest.split("Members of the ensembles")[1]
    assert text.count("against") == 2
    assert "Of conditions and of members" in text
    compared = {(r["group"], r["baseline"]) for r in csv.DictReader(io.StringIO(as_csv(report)))}
    assert sum("night" in group and "night" in baseline for group, baseline in compared) == 1
    assert max(map(len, text.split("Results\n===")[0].splitlines())) <= 100


def test_long_titles_are_folded(tmp_path):
    name = "deeplabv3plus_" + "_".join(["long"] * 10)
    for loss in ("cross_entropy", UCE):
        write_result(tmp_path, loss=loss, model=name, trained_on="somewhere_far", split="v" * 20)
    text = as_text(report_on(tmp_path)).split("Results\n===")[0]
    assert max(map(len, text.splitlines())) <= 100


def test_nothing_falls_by_minus_zero(tmp_path):
    iou = dict.fromkeys(ROAD_NAMES, 50.0)
    write_result(tmp_path, iou=iou)
    write_result(tmp_path, iou={**iou, "road": 49.999}, loss=UCE)
    assert "-0.0" not in as_text(report_on(tmp_path))


def test_many_groups_are_folded_into_tables_that_fit(tmp_path):
    for index, loss in enumerate(("cross_entropy", UCE, "focal_loss", "uce", "dice", "hybrid")):
        write_result(tmp_path, loss=loss, seed=index, model="m")
        write_result(tmp_path, loss=loss, seed=index + 1, model="m")
    text = as_text(report_on(tmp_path))
    assert (
        max(len(line) for line in text.splitlines() if ".json" not in line and "->" not in line)
        <= 100
    )
    assert text.count("Unequal seeds") == 5


def test_a_single_run_without_counts_has_no_deviation_and_no_test(tmp_path):
    write_result(tmp_path, seed=1)
    write_result(tmp_path, seed=1, loss=UCE)
    report = report_on(tmp_path, bootstrap=Bootstrap(100, 1))
    entry = only_comparison(report)
    assert {d.p for d in entry.differences.values()} == {None}
    assert {d.low for d in entry.differences.values()} == {None}
    assert any("no deviation, no interval, no test (n/a)" in note for note in report.notes)
    assert "±" not in as_text(report).split("Scores")[1].split("- All")[0]


def image_counts(seed, in_label=None, images=30, classes=3):
    generator = np.random.default_rng(seed)
    if in_label is None:
        in_label = generator.integers(50, 100, (images, classes))
    in_prediction = generator.integers(50, 100, in_label.shape)
    return np.minimum(in_label, in_prediction) // (1 + seed), in_label, in_prediction


def test_a_single_run_is_resampled_over_its_images(tmp_path):
    first = image_counts(1)
    write_result(tmp_path, classes=ROAD_NAMES[:3], counts=first)
    write_result(tmp_path, classes=ROAD_NAMES[:3], counts=image_counts(0, first[1]), loss=UCE)
    entry = only_comparison(report_on(tmp_path, bootstrap=Bootstrap(200, 5)))
    assert entry.interval == "images"
    for name in (*ROAD_NAMES[:3], "miou"):
        found = entry.differences[name]
        assert found.low < found.value < found.high
        assert found.p is None
    again = only_comparison(report_on(tmp_path, bootstrap=Bootstrap(200, 5)))
    assert entry.differences == again.differences
    # The same images are drawn for both: a run differs from itself by nothing.
    assert only_comparison(report_on(tmp_path, bootstrap=Bootstrap(0, 5))).interval == "none"


def test_the_minority_mean_is_resampled_as_a_mean(tmp_path):
    write_result(tmp_path, classes=ROAD_NAMES[:3], counts=image_counts(1))
    report = report_on(
        tmp_path, minority=["road", "building"], bootstrap=(bootstrap := Bootstrap(200, 5))
    )
    (summary,) = report.summaries
    drawn = bootstrap.scores(summary.group.results[0])
    found = summary.scores[MINORITY]
    ends = np.quantile(drawn[:, [0, 2]].mean(1), (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx(tuple(ends))
    assert found.mean == pytest.approx(
        np.mean([summary.scores[name].mean for name in ("road", "building")])
    )


def test_a_run_paired_with_its_copy_has_an_empty_interval(tmp_path):
    same = image_counts(0)
    write_result(tmp_path, classes=ROAD_NAMES[:3], counts=same)
    write_result(tmp_path, classes=ROAD_NAMES[:3], counts=same, loss=UCE)
    found = only_comparison(report_on(tmp_path, bootstrap=Bootstrap(50, 1))).differences["miou"]
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_counts_of_another_result_are_refused(tmp_path):
    path = write_result(tmp_path, classes=ROAD_NAMES[:3], counts=image_counts(0))
    other = write_result(tmp_path / "o", classes=ROAD_NAMES[:3], counts=image_counts(1))
    beside = path.with_name(f"{path.stem}.images.npz")
    shutil.copy(other.with_name(f"{other.stem}.images.npz"), beside)
    with pytest.raises(ValueError, match="does not belong to"):
        report_on(tmp_path, bootstrap=Bootstrap(10, 1))
    beside.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"images\.npz is damaged"):
        report_on(tmp_path, bootstrap=Bootstrap(10, 1))


def test_a_comparison_over_other_pixels_is_refused(tmp_path):
    write_result(tmp_path)
    write_result(tmp_path, loss=UCE, pixels=999)
    with pytest.raises(ValueError, match="not comparable: the labels were scored at another size"):
        report_on(tmp_path)


def test_different_commits_are_noted(tmp_path):
    write_result(tmp_path, seed=1)
    write_result(tmp_path, seed=2, commit="d" * 40)
    assert any("ccccccc, ddddddd" in note for note in report_on(tmp_path).notes)


def test_a_class_that_some_runs_lack_says_so(tmp_path):
    iou = dict.fromkeys(ROAD_NAMES, 50.0)
    write_result(tmp_path, seed=1, iou=iou)
    write_result(tmp_path, seed=2, iou={**iou, "train": None})
    assert re.search(r"^train +50\.00 \(n 1\)", as_text(report_on(tmp_path)), re.MULTILINE)


def test_the_csv_holds_every_number(three_seeds):
    report = report_on(three_seeds)
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == 2 * (19 + 6)
    found = next(r for r in rows if r["group"] == UCE and r["class"] == "person")
    entry = only_comparison(report)
    assert float(found["mean"]) == pytest.approx(entry.method.scores["person"].mean, rel=1e-5)
    assert float(found["p_holm"]) == pytest.approx(entry.differences["person"].p_holm, rel=1e-5)
    assert (found["metric"], found["n"], found["baseline"]) == ("iou", "3", "cross_entropy")
    assert float(found["paper"]) == 49
    assert next(r for r in rows if r["metric"] == "miou")["class"] == ""


def test_latex_is_escaped_and_balanced(three_seeds):
    text = as_latex(report_on(three_seeds))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    for table in text.split(r"\begin{tabular}")[1:]:
        spec, *lines = table.split(r"\end{tabular}")[0].splitlines()
        columns = len(spec.strip("{}"))
        rows = [line for line in lines if line.endswith(r" \\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[_%#]|±", "\n".join(body))
    assert escape_latex("a_b & 5 % <x>") == r"a\_b \& 5 \% \textless{}x\textgreater{}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(three_seeds, tmp_path):
    body = as_latex(report_on(three_seeds))
    (tmp_path / "a.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True)
    assert (tmp_path / "a.pdf").is_file()


class Page(HTMLParser):
    """Open elements, names and links."""

    VOID = ("meta", "br", "wbr")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [v for name, v in attrs if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_nobody_for_anything(three_seeds):
    for seed in (1, 2):
        write_result(three_seeds, seed=seed, model="a<b>&c", tested_on="cityscapes")
        write_result(three_seeds, seed=seed, model="a<b>&c", tested_on="cityscapes", loss=UCE)
    report = report_on(three_seeds)
    text = as_html(report)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert page.tags.count("svg") == 4
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "@import" not in text
    assert all(name in page.ids for name in re.findall(r"url\(#(\w+)\)", text))
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert "a&lt;b&gt;&amp;c" in text
    assert "a<b>" not in text
    assert '<td colspan="6">deeplabv3plus_resnet101</td>' in text
    assert len(text) < 200_000
    assert as_html(report_on(three_seeds)) == text


def test_means_over_some_of_the_classes_stand_beside_the_others(tmp_path):
    for seed, value in ((1, 40.0), (2, 44.0)):
        for loss, gain in (("cross_entropy", 0), (UCE, 3)):
            subsets = {"miou_16": value + gain, "miou_13": value + 10 + gain}
            write_result(tmp_path, loss=loss, seed=seed, reliability=subsets)
    report = report_on(tmp_path)
    text = as_text(report)
    assert "mIoU of 16 classes" in text
    assert "42.0 ± 2.8" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    found = {row["metric"]: row for row in rows if UCE in row["group"] and not row["class"]}
    assert float(found["miou_13"]["mean"]) == 55
    assert float(found["miou_16"]["difference"]) == 3
    assert found["miou_16"]["p"] == ""  # the tested classes and the mIoU alone are


def test_a_mean_that_some_group_lacks_is_left_out(tmp_path):
    write_result(tmp_path, reliability={"miou_16": 40.0})
    write_result(tmp_path, loss=UCE)
    assert "mIoU of 16" not in as_text(report_on(tmp_path))
