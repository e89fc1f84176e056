"""The action ``--report``: statistics over result files, on the screen and in a folder."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Mapping
from pathlib import Path

from datasets.taxonomy import CAMVID, ROAD, names_of
from engine.run import INCIDENTAL
from methods import METHODS
from utils.arguments import at_least
from utils.distributed import is_main
from utils.files import write_atomically
from utils.log import logger

# The minority classes of the paper (train ids 6, 11, 12, 17, 18), and CamVid's.
ROAD_MINORITY = tuple(names_of(ROAD)[index] for index in (6, 11, 12, 17, 18))
CAMVID_MINORITY = tuple(names_of(CAMVID)[index] for index in (2, 6, 7, 9, 10))

LONGEST_HEAD = 512  # bytes, within which a file says what it is


def flags_of_methods() -> frozenset[str]:
    """The flags that only some methods read."""
    parser = ArgumentParser(add_help=False)
    for method in METHODS.values():
        method.add_flags(parser.add_argument_group())
    return frozenset(action.dest for action in parser._actions)


# Flags that tell no two results apart, beside those that change nothing that is computed: the
# seed, paths that differ from seed to seed, what --eval_size says too.
NOT_TOLD_APART = INCIDENTAL | {
    *("random_seed", "weight", "mask_dir", "crop_val", "val_batch_size", "val_interval"),
    *("report", "report_dir", "baseline", "minority", "bootstrap", "make_uncertainty_masks"),
    *("make_pseudo_labels", "pseudo_dir", "init", "target_root", "miou_subsets"),
    *("weight_dir", "cam_dir", "flag_threshold", "image_tags"),
    *("robustness_source", "confidence", "parity", "per_scene", "image_bootstrap"),
    *("ood_score", "ood_threshold", "component_sizes", "meta_threshold", "score_statistics"),
    # of fitting a calibrator; the calibrator of a test says what it was fitted with
    *("samples_per_image", "fit_objective", "min_t", "max_t", "t_step", "n_clusters"),
    *("clustering_method", "cluster_assignment", "per_class_temperature", "lts_reads"),
    *("lts_init_t", "lts_init", "lts_floor", "lts_epochs", "lts_images", "lts_cache_gb"),
    "lts_validation_share",
}
# Flags of a training, which a test has too but does not read.
OF_TRAINING = (
    frozenset(
        {
            *(
                "train_split",
                "train_transform",
                "scale_range",
                "flip",
                "color_jitter",
                "num_classes",
            ),
            *("pretrained_backbone", "bn_momentum", "sync_bn", "reset_head", "method", "loss_type"),
            *("loss_normalize", "focal_gamma", "focal_alpha", "alpha", "optimizer", "lr"),
            "lr_batch_size",
            *("backbone_lr_factor", "momentum", "weight_decay", "lr_policy", "step_size"),
            *("total_itrs", "batch_size", "accumulate", "amp", "channels_last", "compile"),
            *("activation_checkpointing", "deterministic", "member", "ensemble_lr", "num_models"),
            # heads: a test takes them from the checkpoint
            *("head", "temperature", "temperature_floor", "fast_cosine"),
            *("wt_bound", "batch_weighting", "border_window", "strict_bdr_cls", "boundary_weight"),
            *("loss_reduction", "rlx_off_epoch", "rescale", "repoly", "poly_exp", "epochs"),
            *("epoch_itrs", "class_uniform_pct", "class_uniform_tile", "coarse_boost_classes"),
            *("max_cu_epoch", "hue_jitter", "blur", "scale_filter", "input_size", "crop_classes"),
            *("autoaug", "nesterov", "lr_repeat", "warm_up", "ema", "lambda_seg"),
            *("aux_head", "head_norm", "use_se", "droprate", "head_init"),
            *("target_dataset", "target_root", "target_split", "target_condition"),
            *(
                "target_input_size",
                "target_flip",
                "autoaug_target",
                "pseudo_dir",
                "pseudo_threshold",
            ),
            *("norm_eval", "lr_floor", "underfit", "underfit_beta", "underfit_k"),
            *("base_size", "long_side", "multi_crop_scales", "multi_crop_stride"),
            *("photometric_distortion", "label_damage", "weight_dir", "weight_threshold"),
            *("weighting", "label_source", "image_tags"),
            *("cam_inference", "cam_scales", "cam_crop", "cam_stride", "cam_crf_iterations"),
            *("crf_iterations", "cam_threshold", "cv_scale", "background_power"),
            *("response_preset", "response_scales", "response_decoder", "response_reduce"),
            *("response_normalize", "restrict_to_tags", "save_uncertainty"),
        }
    )
    | flags_of_methods()
)


def add_report_flags(group: _ArgumentGroup) -> None:
    """What a report compares and where it goes."""
    add = group.add_argument
    add("--baseline", metavar="PATTERN", help="groups to compare with; default: cross entropy")
    add("--minority", nargs="+", metavar="NAME", help="classes to test, Holm-corrected")
    add("--bootstrap", type=at_least(0), default=2000, help="resamples for a single run, 0: none")
    add("--robustness_source", metavar="NAME", help="test set whose best error is 1")
    add("--report_dir", type=Path, metavar="DIR", help="instead of <output_dir>/reports/NAME")


def run_report(opts: Namespace) -> int:
    """Print the statistics over ``--report`` and write them as text, CSV, LaTeX, HTML and PNG.

    Raises:
        ValueError: naming the file that is no result, that is not comparable with another, or
            that stands in the report's place and is none.
    """
    if not is_main():
        return 0
    # Not needed by any other action, and slow to import with what they need.
    from utils.report import text as texts
    from utils.report.analysis import Bootstrap, analyse
    from utils.report.latex import LATEX_MARK, as_latex
    from utils.report.page import HTML_MARK, as_html
    from utils.report.reliability import PNG_DPI
    from utils.report.reliability_layout import report_pictures
    from utils.report.results import find_results, read_results
    from utils.report.style import PNG_MARK, as_png
    from utils.report.unknown_layout import unknown_pictures

    results = [
        row
        for path in find_results(opts.report)
        for row in read_results(path, NOT_TOLD_APART, OF_TRAINING)
    ]
    tested = dict.fromkeys(row.facts.tested_on for row in results if not row.subset)
    name = opts.run_name or re.sub(r"[^\w\-.]+", "_", "_".join(tested))
    folder = opts.report_dir or Path(opts.output_dir) / "reports" / name
    marks = {
        "report.txt": texts.TEXT_MARK,
        "report.csv": texts.CSV_MARK,
        "report.tex": LATEX_MARK,
        "report.html": HTML_MARK,
    }
    refuse_other_files(folder, marks)
    report = analyse(
        results,
        baseline=opts.baseline,
        minority=opts.minority,
        usual_minority=(ROAD_MINORITY, CAMVID_MINORITY),
        bootstrap=Bootstrap(opts.bootstrap, opts.random_seed),
        source=opts.robustness_source,
    )
    drawn = (*report_pictures(report), *unknown_pictures(report))
    pictures = {f"{picture.name}.png": picture for picture in drawn}
    refuse_other_files(folder, dict.fromkeys(pictures, PNG_MARK))
    # Before the page, which takes over how they are arranged.
    images = {file: as_png(picture.figure, PNG_DPI) for file, picture in pictures.items()}
    text = texts.as_text(report)
    html = as_html(report, list(pictures.values()))
    pages = (text, texts.as_csv(report), as_latex(report), html)
    for file, page in zip(marks, pages, strict=True):
        write_atomically(folder / file, page.encode())
    for file, image in images.items():
        write_atomically(folder / file, image)
    sys.stdout.write(text)
    logger.info("report in %s", folder / "report.html")
    return 0


def refuse_other_files(folder: Path, marks: Mapping[str, str]) -> None:
    """Refuse to replace files that are no reports.

    Args:
        folder: where the files go.
        marks: by file name, what a report of that form starts with; a PNG has it in its head.

    Raises:
        ValueError: naming the file.
    """
    for name, mark in marks.items():
        path = folder / name
        if not path.exists():
            continue
        content = path.read_bytes() if path.is_file() else b""
        place = content[:LONGEST_HEAD].find(mark.encode())
        if place < 0 or (place > 0 and path.suffix != ".png"):
            raise ValueError(f"{path} is not a report: move it, or choose another --report_dir")
