"""Flags: shared groups, each method's own group, recipes, and the checks before any work."""

from __future__ import annotations

import sys
from argparse import Namespace, _ArgumentGroup
from pathlib import Path

from datasets import DATASETS
from engine.augmentation import add_augmentation_flags
from engine.cam_making import add_cam_flags
from engine.catalogue import CATALOGUE, RECIPES
from engine.checks import check
from engine.fitting import add_calibration_flags
from engine.measuring import add_measurement_flags
from engine.prediction_flags import add_prediction_flags
from engine.pseudo_mask_making import add_pseudo_mask_flags
from engine.reporting import add_report_flags
from engine.response_weights import add_response_flags
from engine.restore import restored_flags, typed_values
from engine.score_fitting import FITTED
from engine.scoring import add_score_flags
from engine.target_data import add_target_flags
from engine.training_data import add_sampling_flags
from methods import METHODS
from methods.network_flags import add_model_flags
from methods.training_loss import add_loss_flags
from network import MODEL_DEFAULTS
from uncertainty.calibrators import CALIBRATORS
from utils.arguments import (
    Help,
    Parser,
    at_least,
    choice,
    class_id,
    describe_unknown,
    expand_files,
    shorten_help,
    size,
    within,
)
from utils.scheduler import FLOOR, LR_POLICIES

EXAMPLES = """\
Defaults stand in brackets; a data set, a method or a recipe may bring its own.

examples:
  python main.py                                             train on the generated streets
  python main.py @recipes/camvid.args --data_root DIR        train a published or tuned recipe
  python main.py --test_only --ckpt checkpoints/best_X.pth   evaluate
  python main.py --predict IMAGES --ckpt checkpoints/best_X.pth
  python main.py --report results/*.json                     means, intervals, tests over seeds
  python main.py --check_data --dataset folder --data_root DIR
  torchrun --nproc_per_node 4 main.py ...                    the same command on four GPUs

instance uncertainty, what the published commands do (docs/instance_uncertainty.md has them):
  --model deeplabv3plus_resnet101 --dataset cityscapes ...   train a member by cross entropy
  --model deep_ensemble --weight A.pth --weight B.pth --make_uncertainty_masks ...
                                                             where the members are unsure, as masks
  --loss_type uncertainty_cross_entropy ...                  train on those masks
  --model ensemble --member A --member B --ensemble_lr a --ensemble_lr b ...
                                                             train an ensemble that weights itself
  --ckpt best_X_acdc_Y.pth --dataset cityscapes --test_only  test under domain shift

reliability (docs/reliability.md):
  --test_only --ckpt X.pth --metrics segmentation calibration misclassification
                                                             can its probabilities be trusted
  --eval_on cityscapes,split=relis_test,root=C idd,split=relis_test,root=I
                                                             several data sets in one pass
  --fit_calibrator temperature --ckpt X.pth --val_split val  then: --calibrator FILE
  --external my_models:segformer --metrics calibration ...   a network of another project

unknown objects (docs/abet.md):
  --head cosine --temperature learned                        train AbeT's network
  --test_only --ckpt X.pth --dataset road_anomaly --data_root R --ood_score abet,msp,odin

weak supervision, each stage also from your own files (docs/urn.md):
  --method cam --dataset voc --year 2012_aug --data_root V --image_tags xml
                                                             which classes an image shows
  --make_cams --ckpt CAM.pth --cam_dir C                     where they may be
  --make_pseudo_masks --dataset voc --year 2012_aug --data_root V --cam_dir C --pseudo_dir M
  --pseudo_dir M --underfit clamp ...                        a first network on noisy masks
  --make_response_weights --ckpt FIRST.pth --weight_dir W    its masks, and how far to trust them
  --weight_dir W ...                                         a second network
"""


def add_action_flags(group: _ArgumentGroup) -> None:
    """What to do instead of training; at most one of them."""
    add = group.add_argument
    add("--test_only", action="store_true", help="evaluate --ckpt, write results/NAME.json")
    add("--predict", metavar="PATH", help="label an image, a folder or a quoted glob with --ckpt")
    add(
        "--make_uncertainty_masks",
        action="store_true",
        help="write each training image's instance uncertainty, see uncertainty_cross_entropy",
    )
    add("--make_pseudo_labels", action="store_true", help="label the training images with --ckpt")
    add("--make_cams", action="store_true", help="activation maps of the training images")
    add("--make_pseudo_masks", action="store_true", help="pixel labels from activation maps")
    add(
        "--make_response_weights",
        action="store_true",
        help="label the training images with --ckpt and weigh pixels by response scaling",
    )
    add(
        "--fit_calibrator",
        type=choice("calibrator", CALIBRATORS),
        metavar="KIND",
        help=f"fit {', '.join(CALIBRATORS)} to --ckpt on --val_split",
    )
    add(
        "--fit_score",
        choices=FITTED,
        help="gather statistics of the training images for sml, react and dice",
    )
    add("--report", nargs="+", metavar="RESULT", help="compare result files over seeds")
    add("--check_data", action="store_true", help="read every label: histogram, offending files")
    add("--list", type=choice("list", CATALOGUE), metavar="WHAT", help=", ".join(CATALOGUE))


def add_data_flags(group: _ArgumentGroup) -> None:
    """Which images, how they are cut, how they are read."""
    add = group.add_argument
    add("--dataset", type=choice("data set", DATASETS), default="streets", help="see --list")
    add("--data_root", type=Path, help="folder of the data set; streets needs none")
    add("--year", default="2012", help="voc: 2007 to 2012, or 2012_aug")
    add("--condition", help="acdc, streets: only this condition, such as night")
    add("--scenes", nargs="+", metavar="NAME", help="evaluate on these cities or sequences only")
    add("--corruption", metavar="KIND:N", help="of the evaluated images, such as fog:3")
    add(
        "--eval_on",
        nargs="+",
        metavar="PART",
        help="evaluate or fit on several: DATASET[,split=S][,condition=C][,scene=A+B][,root=DIR]"
        "[,corruption=KIND:N][,augmented=N]",
    )
    add(
        "--ood_classes",
        type=class_id,
        nargs="+",
        metavar="[DATASET:]ID",
        help="label ids of unknown objects for the metric ood; default: the data set's usual ones",
    )
    add("--download", action="store_true", help="voc: fetch the official archive first")
    add("--num_classes", type=at_least(2), help="checked against the data set's own count")
    add("--train_split", default="train", help="split to train on")
    add("--val_split", default="val", help="split to validate on and to test on")
    add("--crop_size", type=size, default=(768, 768), help="N or HxW that training sees")
    add("--cache", type=Path, metavar="DIR", help="keep decoded, resized images memory-mapped")
    add(
        "--mask_dir",
        type=Path,
        metavar="DIR",
        help="uncertainty masks; default: <data_root>/uncertainty_masks",
    )
    add("--num_workers", type=at_least(0), default=2, help="loader processes")


def add_train_flags(group: _ArgumentGroup) -> None:
    """How to train."""
    add = group.add_argument
    add("--method", type=choice("method", METHODS), default="supervised")
    add("--optimizer", choices=("adam", "adamw", "sgd"), default="adam")
    add("--lr", type=within(0, 100), default=1e-4, help="of the classifier")
    add(
        "--lr_batch_size",
        type=at_least(1),
        metavar="N",
        help="what the rates are for: all of them times --batch_size / N, linear scaling",
    )
    add("--backbone_lr_factor", type=within(0, 100), default=0.1, help="times lr: the backbone's")
    add("--momentum", type=within(0, 1), default=0.9, help="of sgd")
    add("--nesterov", action="store_true", help="of sgd")
    add(
        "--lr_repeat",
        choices=("single", "faithful"),
        default="single",
        help="faithful: MRNet's sgd, which updates the backbone's tensors 3 or 4 times a step",
    )
    add("--weight_decay", type=within(0, 1), default=1e-4)
    add("--lr_policy", choices=LR_POLICIES, default="poly", help="poly: power 0.9, floor 1e-6")
    add("--lr_floor", type=within(0, 1), default=FLOOR, help="least rate, of poly_floor")
    add("--poly_exp", type=within(0, 10), help="power; default: 0.9, by epoch 1")
    add("--rescale", type=within(0, 100), default=1.0, help="of scl_poly's lr from its restart on")
    add("--repoly", type=within(0, 10), default=1.5, help="power of scl_poly from its restart on")
    add("--step_size", type=at_least(1), default=10_000, help="of the step policy")
    add(
        "--warm_up",
        type=at_least(0),
        default=0,
        help="steps of poly in which lr rises from a tenth",
    )
    add("--total_itrs", type=at_least(1), default=30_000, help="optimizer steps")
    add("--stop_itrs", type=at_least(1), help="end there; the schedule stays that of --total_itrs")
    add("--epochs", type=at_least(1), help="instead of --total_itrs: passes over the images")
    add("--epoch_itrs", type=at_least(1), help="steps that count as an epoch; default: one pass")
    add("--batch_size", type=at_least(1), default=16, help="in all: processes x --accumulate")
    add("--accumulate", type=at_least(1), default=1, help="backward passes per optimizer step")
    add("--amp", choices=("off", "bf16", "fp16"), default="off", help="autocast in training")
    add("--channels_last", action="store_true", help="memory layout that tensor cores like")
    add("--compile", action="store_true", help="torch.compile the network")
    add("--activation_checkpointing", action="store_true", help="less memory, more time")
    add("--ema", type=within(0, 1), metavar="DECAY", help="keep averaged weights, such as 0.999")
    add("--val_interval", type=at_least(1), default=100, help="steps between validations")
    add("--patience", type=at_least(1), help="stop after this many validations without a best")
    add("--print_interval", type=at_least(1), default=10, help="steps between logged losses")
    add("--deterministic", action="store_true", help="deterministic algorithms only")


def add_run_flags(group: _ArgumentGroup) -> None:
    """Where a run lives and what it shows."""
    add = group.add_argument
    add("--random_seed", type=int, default=1, help="-1 draws one; it is in the files' names")
    add("--gpu_id", default="0", help="ignored under torchrun and where there is no GPU")
    add("--ckpt", type=Path, help="checkpoint to test, to predict with, or to start from")
    add("--init", type=Path, metavar="FILE", help="checkpoint whose weights a new run starts from")
    add("--continue_training", action="store_true", help="go on with this run, or with --ckpt")
    add("--run_name", help="name of the run's files instead of MODEL_DATASET_osN_seedN")
    add("--overwrite", action="store_true", help="replace the files of a run of this name")
    add("--output_dir", type=Path, default=Path(), help="holds checkpoints/, runs/, results/")
    add("--enable_vis", action="store_true", help="show windows on a visdom server")
    add("--vis_port", type=at_least(1), default=13570)
    add("--vis_env", default="main")
    add("--vis_num_samples", type=at_least(0), default=8)
    add("--traceback", action="store_true", help="show where in the code an error arose")


SHARED = {
    "action": add_action_flags,
    "data": add_data_flags,
    "model": add_model_flags,
    "augmentation": add_augmentation_flags,
    "sampling": add_sampling_flags,
    "training": add_train_flags,
    "loss": add_loss_flags,
    "adaptation": add_target_flags,
    "activation maps": add_cam_flags,
    "pseudo-masks": add_pseudo_mask_flags,
    "response weights": add_response_flags,
    "evaluation": add_prediction_flags,
    "measurement": add_measurement_flags,
    "scores": add_score_flags,
    "calibration": add_calibration_flags,
    "run": add_run_flags,
    "report": add_report_flags,
}


def build_parser() -> tuple[Parser, dict[str, set[str]]]:
    """The parser with every flag, and the methods that read each flag that is not shared."""
    parser = Parser(
        "main.py",
        usage="python main.py [@RECIPE ...] [--FLAG VALUE ...]",
        description="Uncertainty in semantic segmentation: one command per experiment.",
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=Help,
    )
    for title, add_flags in SHARED.items():
        add_flags(parser.add_argument_group(title))
    owners: dict[str, set[str]] = {}
    for name, method in METHODS.items():
        group = parser.add_argument_group(f"--method {name}")
        method.add_flags(group)
        heirs = {other for other, kind in METHODS.items() if issubclass(kind, method)}
        owners |= {action.dest: heirs for action in group._group_actions}
    shorten_help(parser._actions)
    return parser, owners


def parse(argv: list[str] | None = None) -> Namespace:
    """Flags to options: defaults, then the data set's, the method's, recipes, the user's own.

    ``typed`` of the result names the flags that were typed or came from a recipe. A mistake
    prints one line and exits with 2.
    """
    parser, owners = build_parser()
    try:
        arguments = expand_files(sys.argv[1:] if argv is None else argv, RECIPES)
    except ValueError as error:
        parser.error(str(error))
    first, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(describe_unknown(unknown[0], parser._actions, arguments))
    first.typed = frozenset(a.split("=")[0][2:] for a in arguments if a.startswith("--"))
    try:
        stored = restored_flags(first)
    except ValueError as error:
        parser.error(str(error))
    named = Namespace(**{**vars(first), **stored, **typed_values(first)})
    if named.fit_calibrator == "local":
        named.method = "local_temperature"
    elif named.model == "ensemble" and "method" not in first.typed:
        named.method = "ensemble"
    parser.set_defaults(method=named.method, **DATASETS[named.dataset].defaults)
    parser.set_defaults(**METHODS[named.method].defaults)
    parser.set_defaults(**MODEL_DEFAULTS.get(named.model, {}))
    parser.set_defaults(**stored)
    opts = parser.parse_args(arguments, Namespace(typed=first.typed))
    for flag in sorted(opts.typed & owners.keys()):
        if opts.method not in owners[flag]:
            names = " or ".join(sorted(owners[flag]))
            parser.error(f"--{flag} needs --method {names}; this run is {opts.method}")
    for problem in (*check(opts), *METHODS[opts.method].check(opts)):
        parser.error(problem)
    return opts
