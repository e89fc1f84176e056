"""Scores from flags: which ones, in which scale, with which statistics."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.transforms import IMAGENET_STD
from engine.fuse_heads import has_two_heads
from engine.trained import Trained
from uncertainty import (
    PUBLISHED,
    ScoreName,
    ScoreSettings,
    build_score,
    load_statistics,
    parse_score_name,
    split_names,
)
from utils.arguments import Flat, missing_file, within
from utils.types import Score

FLAGS_OF_SCORES = ("scores", "confidence", "ood_score", "ece_confidence")
OOD_METRICS = ("ood", "components", "image_ood")
DROPOUT_OR_MEMBERS = "give a --model deep_ensemble or ensemble, --mc_samples N or --fuse members"


def score_names(text: str) -> list[str]:
    """A type for argparse: one score or several with commas, as ``split_names`` writes them."""
    try:
        return split_names(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def add_score_flags(group: _ArgumentGroup) -> None:
    """Which scores are judged, and how they are computed."""
    add = group.add_argument
    add(
        "--confidence",
        nargs="+",
        type=score_names,
        action=Flat,
        default=["msp"],
        metavar="SCORE",
        help="judged as ranking of right and wrong pixels, see --list scores",
    )
    add(
        "--ood_score",
        nargs="+",
        type=score_names,
        action=Flat,
        metavar="SCORE,SCORE",
        help="judged as ranking of known and unknown pixels; default: those of --confidence",
    )
    add("--score_norm", choices=("none", "paper"), default="none", help="paper: AbeT's scales")
    add(
        "--score_statistics",
        type=Path,
        metavar="FILE",
        help="of --fit_score; for sml, react and dice",
    )
    add("--odin_epsilon", type=within(0, 1), default=0.002, help="odin's step, of images in [0, 1]")
    add("--react_percentile", type=within(0, 100), default=90.0, help="activations are cut there")
    add("--dice_percentile", type=within(0, 100), default=90.0, help="weights are kept above it")


def check_score_flags(opts: Namespace, *, has_members: bool) -> Iterable[str]:
    """Problems with the scores, each one sentence that names the fix.

    Args:
        opts: the flags, those of the checkpoint among them.
        has_members: whether predictions will have members.
    """
    named = {flag: names_of(getattr(opts, flag)) for flag in FLAGS_OF_SCORES}
    for flag, names in named.items():
        for name in map(parse_score_name, names):
            yield from check_score(opts, flag, name, has_members=has_members)
    if opts.score_statistics and not opts.score_statistics.is_file():
        yield missing_file("score_statistics", opts.score_statistics)
    if "ood_score" in opts.typed and not (opts.test_only or opts.predict):
        yield "--ood_score goes with --test_only and --predict"
    yield from check_flagged(opts)


def check_flagged(opts: Namespace) -> Iterable[str]:
    """Problems with the metric ``flagged``."""
    if "flagged" not in opts.metrics:
        if "flag_threshold" in opts.typed:
            yield "--flag_threshold concerns the metric flagged: add it to --metrics"
    elif not any(parse_score_name(name).has_limits for name in names_of(opts.confidence)):
        yield (
            f"--metrics flagged needs a score with a greatest value, and {opts.confidence[0]} has"
            " none: add one to --confidence, such as response_scaling, msp or entropy"
        )


def check_score(opts: Namespace, flag: str, name: ScoreName, *, has_members: bool) -> Iterable[str]:
    """Problems with one score that a flag names."""
    if opts.eval_crf and name.needs_more_than_probabilities:
        yield (
            f"--{flag} {name} reads more than probabilities, and --eval_crf leaves these alone:"
            " leave --eval_crf out, or take another score, such as msp or entropy"
        )
        return
    if name.needs_members and not has_members:
        yield f"--{flag} {name} compares members: {DROPOUT_OR_MEMBERS}"
    known = not (opts.external or opts.logits_dir or opts.model in ("deep_ensemble", "ensemble"))
    if name.needs_temperature and (opts.temperature == "none" if known else opts.logits_dir):
        yield (
            f"--{flag} {name} reads the learned temperature, which this network has not: train one"
            " with --temperature learned, or take a score without, such as energy or msp"
        )
    if name.needs_heads and (opts.logits_dir or (known and not has_two_heads(opts))):
        yield (
            f"--{flag} {name} compares the two heads of a network, and this one has one: train one"
            " with --aux_head, or choose another score"
        )
    several = opts.eval_flip or len(opts.eval_scales) > 1
    if name.needs_logits and several and opts.fuse == "probs":
        yield (
            f"--{flag} {name} reads logits, and --fuse probs leaves only the mean probabilities of"
            " the mirrored and scaled passes: add --fuse logits or --fuse members"
        )
    if name.needs_logits and opts.upsample == "probs":
        yield (
            f"--{flag} {name} reads logits, and --upsample probs leaves only probabilities: leave"
            " --upsample out"
        )
    if name.needs_statistics and not (opts.score_statistics or opts.fit_score):
        yield (
            f"--{flag} {name} needs statistics of the training images: make them with --fit_score"
            f" {name.modifier or name.name}, then give --score_statistics FILE"
        )
    if name.needs_network and opts.logits_dir:
        yield f"--{flag} {name} runs the network again, and --logits_dir has only its logits"
    if opts.score_norm == "paper" and name.name not in PUBLISHED:
        yield (
            f"--{flag} {name} has no published scale: leave --score_norm out, or choose from"
            f" {', '.join(PUBLISHED)}"
        )


def names_of(value: str | Sequence[str] | None) -> Sequence[str]:
    """The names that a flag with one or more of them holds."""
    return [value] if isinstance(value, str) else value or ()


def ood_names(opts: Namespace) -> list[str]:
    """The scores that tell known from unknown pixels."""
    return list(opts.ood_score or opts.confidence)


def build_scores(
    opts: Namespace, names: Iterable[str], trained: Trained, sha256: str
) -> list[Score]:
    """The scores of these names for a trained network.

    Args:
        opts: the flags.
        names: as ``parse_score_name`` reads them.
        trained: the network.
        sha256: of its weights.

    Raises:
        ValueError: if statistics are missing, damaged or those of another network.
    """
    parsed = [parse_score_name(name) for name in names]
    statistics = None
    if any(name.needs_statistics for name in parsed) and opts.score_statistics:
        statistics = load_statistics(opts.score_statistics)
        refuse_other_network(opts, statistics.manifest, trained, sha256)
    settings = ScoreSettings(
        norm=opts.score_norm,
        epsilon=opts.odin_epsilon,
        std=IMAGENET_STD,
        statistics=statistics,
        react_percentile=opts.react_percentile,
        dice_percentile=opts.dice_percentile,
    )
    return [build_score(name, settings) for name in parsed]


def refuse_other_network(
    opts: Namespace, manifest: dict[str, object], trained: Trained, sha256: str
) -> None:
    """Refuse statistics that were made with another network.

    Raises:
        ValueError: naming the file and what differs.
    """
    if manifest.get("classes") != list(trained.class_names):
        what = "a network with other classes"
    elif manifest.get("network") != sha256:
        what = "another network"
    else:
        return
    raise ValueError(
        f"{opts.score_statistics} holds statistics of {what}: make this one's with --fit_score"
    )
