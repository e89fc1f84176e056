"""What has to hold between the shared flags, before any work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from datasets import DATASETS
from datasets.corruptions import parse_corruption
from datasets.parts import parse_part
from engine.augmentation import check_augmentation_flags
from engine.cam_making import check_cam_flags
from engine.prediction_flags import check_prediction_flags
from engine.pseudo_mask_making import check_pseudo_mask_flags
from engine.response_weights import check_response_flags
from engine.scoring import OOD_METRICS, check_score_flags, ood_names
from engine.target_data import check_target_flags
from engine.training_checks import check_train_flags
from engine.training_data import check_sampling_flags
from methods import METHODS
from methods.training_loss import check_loss_flags
from network import ENSEMBLES
from utils.arguments import missing_file
from utils.distributed import planned_world_size

OF_PREDICTIONS = (
    *("test_only", "predict", "make_uncertainty_masks", "make_pseudo_labels"),
    "make_response_weights",
)
OF_ANY_NETWORK = (*OF_PREDICTIONS, "fit_calibrator", "fit_score")  # also one from elsewhere
OF_TRAINED = (*OF_ANY_NETWORK, "make_cams")  # need a network
ACTIONS = (*OF_TRAINED, "make_pseudo_masks", "report", "check_data", "list")
OF_FILES = ("local", "cluster")  # calibrators that need more than logits


def chosen_actions(opts: Namespace) -> list[str]:
    """The action flags that are set; none means training."""
    return [name for name in ACTIONS if getattr(opts, name)]


def check(opts: Namespace) -> Iterable[str]:
    """Problems with the shared flags, each one sentence that names the fix."""
    actions = chosen_actions(opts)
    if len(actions) > 1:
        yield f"--{actions[0]} and --{actions[1]} are two actions; give one"
    if opts.list or opts.report:
        return
    yield from check_data_flags(opts)
    yield from check_network_flags(opts)
    yield from check_outside_network(opts)
    yield from check_prediction_flags(opts)
    yield from check_evaluation_flags(opts)
    yield from check_map_flags(opts)
    yield from check_calibration_flags(opts)
    if not actions or opts.fit_calibrator == "local":
        yield from check_train_flags(opts)
    if not actions:
        yield from check_loss_flags(opts)
        yield from check_augmentation_flags(opts)
        yield from check_sampling_flags(opts)
        yield from check_target_flags(opts)
        yield from METHODS[opts.method].check_training(opts)


def check_network_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the flags that say which network is trained or where it comes from."""
    action = next(iter(chosen_actions(opts)), "train")
    if opts.model == "deep_ensemble":
        yield from check_deep_ensemble(opts, action)
    elif opts.weight:
        yield "--weight names members of --model deep_ensemble; a single network is --ckpt FILE"
    elif action in OF_TRAINED and not (opts.ckpt or opts.external or opts.logits_dir):
        yield f"--{action} needs a trained network: add --ckpt checkpoints/best_NAME.pth"
    trains = METHODS[opts.method].trains_network
    if trains and (opts.model == "ensemble") != (opts.method == "ensemble"):
        yield f"--model ensemble and --method ensemble go together, not with {opts.model}"
    yield from check_score_flags(opts, has_members=has_members(opts))
    for name in ("ckpt", "init"):
        path = getattr(opts, name)
        if path is not None and not path.is_file():
            yield missing_file(name, path)
    if opts.init and action != "train":
        yield f"--init is what a new run starts from; --{action} takes --ckpt"
    if opts.init and opts.ckpt:
        yield "--init and --ckpt both name weights; give one"


def has_members(opts: Namespace) -> bool:
    """Whether predictions will have members: networks, samples of dropout, or fused passes."""
    passes = opts.fuse == "members" and (opts.eval_flip or len(opts.eval_scales) > 1)
    return opts.model in ENSEMBLES or opts.mc_samples is not None or passes


def check_outside_network(opts: Namespace) -> Iterable[str]:
    """Problems with a network or logits from elsewhere."""
    sources = [name for name in ("ckpt", "weight", "external", "logits_dir") if getattr(opts, name)]
    if len(sources) > 1 and {"external", "logits_dir"} & set(sources):
        yield f"--{sources[0]} and --{sources[1]} both name the network; give one"
    outside = opts.external or opts.logits_dir
    if outside and not set(OF_ANY_NETWORK) & set(chosen_actions(opts)):
        yield f"--external and --logits_dir are for --{', --'.join(OF_ANY_NETWORK)}"
    if not opts.logits_dir:
        return
    if not opts.logits_dir.is_dir():
        yield f"--logits_dir {opts.logits_dir} is no folder"
    if opts.predict:
        yield "--predict runs a network, and --logits_dir has only its logits: use --test_only"
    if opts.fit_calibrator in OF_FILES:
        yield f"--fit_calibrator {opts.fit_calibrator} needs the network; use temperature or vector"
    changed = {"eval_flip", "eval_scales", "sliding_window", "infer_size", "infer_fit"}
    changed |= {"infer_short_side", "eval_crf"}
    changed |= {"mc_samples", "eval_amp", "fuse_heads", "fuse_weight_aux", "upsample"}
    for name in sorted(changed & opts.typed):
        yield f"--{name} changes how a network is run, and --logits_dir has only its logits"


def check_map_flags(opts: Namespace) -> Iterable[str]:
    """Problems with maps on disk: their making, and what is read of them."""
    yield from check_cam_flags(opts)
    yield from check_pseudo_mask_flags(opts)
    yield from check_response_flags(opts)


def check_evaluation_flags(opts: Namespace) -> Iterable[str]:
    """Problems with what is measured."""
    if opts.calibrator is not None:
        if not set(OF_PREDICTIONS) & set(chosen_actions(opts)):
            yield f"--calibrator goes with --{', --'.join(OF_PREDICTIONS)}"
        if not opts.calibrator.is_file():
            yield missing_file("calibrator", opts.calibrator)
    yield from check_evaluated_images(opts)
    if not opts.test_only:
        return
    yield from check_unknown_objects(opts)
    if "image_ood" in opts.metrics and len(opts.eval_on or ()) < 2:
        yield (
            "--metrics image_ood tells images of one data set from those of others: give the known"
            " one first and the others after it, --eval_on IN OUT ..."
        )


def check_unknown_objects(opts: Namespace) -> Iterable[str]:
    """Problems with how unknown objects are looked for."""
    names = ood_names(opts)
    if opts.ood_threshold and len(opts.ood_threshold) not in (1, len(names)):
        yield (
            f"--ood_threshold has {len(opts.ood_threshold)} values for {len(names)} scores: give"
            f" one for all, or one for each of {', '.join(names)}"
        )
    for flag in ("ood_threshold", "component_sizes"):
        if flag in opts.typed and "components" not in opts.metrics:
            yield f"--{flag} concerns the metric components: add it to --metrics"
    if opts.ood_score and not set(OOD_METRICS) & set(opts.metrics):
        if "metrics" in opts.typed:
            yield "--ood_score names what the metrics ood, components and image_ood judge: add one"
        opts.metrics = [*opts.metrics, "ood"]


def check_evaluated_images(opts: Namespace) -> Iterable[str]:
    """Problems with which images are evaluated, and how they look."""
    if not (opts.test_only or opts.fit_calibrator or opts.fit_score):
        for name in ("eval_on", "scenes", "corruption", "ood_classes"):
            if getattr(opts, name):
                yield f"--{name} goes with --test_only, --fit_calibrator and --fit_score"
        return
    if opts.eval_on:
        for name in ("val_split", "condition", "scenes", "corruption"):
            if name in opts.typed:
                yield f"--eval_on names each part's own {name}: leave --{name} out"
    yield from check_parts(opts)


def check_parts(opts: Namespace) -> Iterable[str]:
    """Problems with the spelling of parts, corruptions and classes."""
    try:
        for text in opts.eval_on or ():
            parse_part(text)
        if opts.corruption:
            parse_corruption(opts.corruption)
    except ValueError as error:
        flag = "eval_on" if opts.eval_on else "corruption"
        yield f"--{flag}: {error}"
    for dataset, _ in opts.ood_classes or ():
        if dataset and dataset not in DATASETS:
            yield f"--ood_classes: no data set is called {dataset}; there are {', '.join(DATASETS)}"


def check_calibration_flags(opts: Namespace) -> Iterable[str]:
    """Problems with how a calibrator is fitted."""
    if opts.min_t <= 0:
        yield f"--min_t {opts.min_t:g}: a temperature is greater than 0"
    if opts.min_t >= opts.max_t:
        yield f"--min_t {opts.min_t:g} must be less than --max_t {opts.max_t:g}"
    if opts.t_step <= 0:
        yield f"--t_step {opts.t_step:g} must be greater than 0"
    if opts.samples_per_image < 1 and opts.samples_per_image != -1:
        yield f"--samples_per_image {opts.samples_per_image}: at least 1, or -1 for all pixels"
    if opts.fit_calibrator == "local" and planned_world_size() > 1:
        yield "--fit_calibrator local runs in one process: start it without torchrun"


def check_deep_ensemble(opts: Namespace, action: str) -> Iterable[str]:
    """Problems with the members of a deep ensemble."""
    if action == "train":
        yield (
            "--model deep_ensemble joins trained networks: train its members one by one, or"
            " together with --model ensemble"
        )
    if not opts.weight:
        yield "--model deep_ensemble needs its members: --weight FILE --weight FILE ..."
    if opts.ckpt is not None:
        yield "--model deep_ensemble is read from --weight FILE ..., not from --ckpt"
    for path in opts.weight or []:
        if not path.is_file():
            yield missing_file("weight", path)


def check_data_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the flags about data."""
    if opts.crop_val and opts.eval_size == "native":
        yield "--crop_val means --eval_size crop, but --eval_size is native; drop one"
    if opts.eval_centre and (opts.crop_val or opts.eval_size == "crop"):
        yield "--eval_centre and --eval_size crop both say which size images have; give one"
    opts.eval_size = opts.eval_size or ("crop" if opts.crop_val else "native")
    if opts.data_root is None and needs_folder(opts):
        yield f"--dataset {opts.dataset} needs its folder: add --data_root DIR"
    if opts.save_probs and not opts.predict:
        yield "--save_probs goes with --predict PATH"
    if opts.scale_range[0] > opts.scale_range[1]:
        yield f"--scale_range goes from small to large: {opts.scale_range[1]} {opts.scale_range[0]}"


def needs_folder(opts: Namespace) -> bool:
    """Whether ``--dataset`` is read from a folder in this action."""
    return DATASETS[opts.dataset].needs_root and not (opts.predict or opts.eval_on)
