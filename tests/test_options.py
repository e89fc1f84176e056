"""Flags: the frozen list, who wins, and one helpful line for every mistake."""

import json
from pathlib import Path

import pytest
import torch

from options import build_parser, parse

FROZEN = Path(__file__).with_name("flags.json")
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.args"))


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        parse(list(argv))
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("main.py: error: ")
    assert message.count("\n") == 1
    return message


def test_the_list_of_flags_changes_only_on_purpose():
    parser, _ = build_parser()
    flags = sorted(flag for action in parser._actions for flag in action.option_strings)
    assert flags == json.loads(FROZEN.read_text())


@pytest.mark.parametrize(
    "flag",
    [
        *("model", "gpu_id", "crop_val", "lr", "crop_size", "batch_size", "val_batch_size"),
        *("output_stride", "dataset", "data_root", "total_itrs", "random_seed", "ckpt"),
        *("loss_type", "test_only", "separable_conv", "save_val_results", "lr_policy"),
        *("step_size", "dropout", "continue_training", "weight_decay", "print_interval"),
        *("val_interval", "download", "year", "num_classes", "enable_vis", "vis_port", "vis_env"),
        *("vis_num_samples", "backbone", "alpha", "num_models", "member", "ensemble_lr", "weight"),
        "make_uncertainty_masks",
    ],
)
def test_the_published_flags_exist(flag):
    parser, _ = build_parser()
    assert f"--{flag}" in parser._option_string_actions


def test_a_published_command_parses_to_what_it_means():
    opts = parse(
        [
            "--model",
            "deeplabv3plus_resnet101",
            "--gpu_id",
            "0",
            "--crop_val",
            "--lr",
            "0.0001",
            "--crop_size",
            "768",
            "--batch_size",
            "2",
            "--val_batch_size",
            "1",
            "--output_stride",
            "16",
            "--dataset",
            "cityscapes",
            "--data_root",
            "./datasets/data/cityscapes",
            "--total_itrs",
            "50000",
            "--random_seed",
            "-1",
        ]
    )
    assert (opts.crop_size, opts.eval_size, opts.train_transform) == ((768, 768), "crop", "resize")
    assert (opts.optimizer, opts.weight_decay, opts.lr_policy) == ("adam", 1e-4, "poly")
    assert (opts.backbone_lr_factor, opts.bn_momentum, opts.flip) == (0.1, 0.01, 0)
    assert (opts.loss_type, opts.val_interval, opts.amp) == ("cross_entropy", 100, "off")


def test_the_data_set_gives_defaults_and_the_user_wins():
    plain, typed = parse([]), parse(["--batch_size", "4"])
    assert plain.dataset == "streets"
    assert plain.total_itrs < 2000
    assert typed.batch_size == 4
    assert typed.total_itrs == plain.total_itrs


def test_a_recipe_is_expanded_and_later_flags_win(tmp_path):
    recipe = tmp_path / "small.args"
    recipe.write_text("# a title\n--lr 0.5   # why\n\n--crop_size 64x128\n")
    opts = parse([f"@{recipe}", "--lr", "0.25"])
    assert (opts.lr, opts.crop_size) == (0.25, (64, 128))
    assert opts.typed == {"lr", "crop_size"}


OF_RECIPES = {  # the folder that a flag of a recipe asks for
    "--target_dataset": "--target_root",
    "--method rectified": "--pseudo_dir",
    "--weighting": "--weight_dir",
    "--make_response_weights": "--weight_dir",
    "multi_crop": "--cam_dir",
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_parses(recipe, tmp_path):
    words = [f"@{recipe}", "--data_root", str(tmp_path)]
    text = recipe.read_text()
    for asked, folder in OF_RECIPES.items():
        if asked in text:
            words += [folder, str(tmp_path)]
    if "--make_response_weights" in text:
        torch.save({"model_state": {"weight": torch.zeros(1)}, "opts": {}}, tmp_path / "first.pth")
        words += ["--ckpt", str(tmp_path / "first.pth")]
    opts = parse(words)
    assert not opts.list


MISTAKES = {
    "--modle deeplabv3plus_resnet50": "did you mean --model?",
    "--autoaug False": "--autoaug takes no value",
    "--model deeplabv3plus_resnet5": "did you mean deeplabv3plus_resnet50?",
    "--dataset cityscape": "did you mean cityscapes?",
    "--loss_type cross_entrpy": "did you mean cross_entropy?",
    "--lr abc": "'abc' is not a number",
    "--crop_size 12by3": "write 768 for a square or 240x320",
    "--total_itrs 1.5": "not a whole number of at least 1",
    "--flip 2": "outside 0..1",
    "--output_stride 4": "invalid choice",
    "--crop_val --eval_size native": "drop one",
    "--dataset cityscapes": "add --data_root DIR",
    "--batch_size 1": "at least --batch_size 2",
    "--batch_size 3 --accumulate 2": "must be divisible by 2",
    "--batch_size 2 --accumulate 2": "a smaller --accumulate",
    "--crop_size 32": "the smallest side is 33",
    "--crop_size 16 --output_stride 8": "the smallest side is 17",
    "--gpu_id 0,1": "torchrun --nproc_per_node 2 main.py",
    "--sync_bn": "start with torchrun",
    "--test_only": "add --ckpt",
    "--predict images": "add --ckpt",
    "--test_only --check_data --ckpt x": "are two actions",
    "--save_probs": "goes with --predict",
    "--model deeplabv3plus_timm": "needs --backbone NAME",
    "--scale_range 2 0.5": "from small to large",
    "@missing.args": "missing.args does not exist; recipes/ has",
}


@pytest.mark.parametrize(("command", "advice"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_advice(command, advice, capsys):
    assert advice in refused(capsys, *command.split())


def test_a_missing_checkpoint_names_its_neighbours(tmp_path, capsys):
    for name in ("best.pth", "latest.pth"):
        (tmp_path / name).touch()
    message = refused(capsys, "--test_only", "--ckpt", str(tmp_path / "bset.pth"))
    assert "bset.pth does not exist" in message
    assert "best.pth" in message


def test_batch_one_is_fine_where_nothing_is_trained(tmp_path):
    checkpoint = tmp_path / "x.pth"
    checkpoint.touch()
    opts = parse(["--check_data", "--batch_size", "1"])
    assert opts.batch_size == 1


def test_a_model_brings_defaults_that_a_flag_overrides():
    plain = parse(["--model", "pspnet_mobilenet"])
    assert (plain.output_stride, plain.lambda_seg, plain.fuse_heads) == (8, 0.4, "main")
    typed = parse(["--model", "pspnet_mobilenet", "--lambda_seg", "1", "--fuse_heads", "logits"])
    assert (typed.lambda_seg, typed.fuse_heads) == (1, "logits")
    assert parse([]).fuse_heads == "logits"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--model cam_mobilenet", "add --method cam"),
        ("--method cam --image_tags masks --norm_eval", "cam_mobilenet has --cam_norm"),
        ("--method cam", "add --image_tags masks, xml"),
        ("--image_tags masks", "which --method supervised does not read"),
        ("--model pspnet_mobilenet --use_se", "PSPNet has a second head of its own"),
        ("--lr_floor 1e-4", "--lr_floor goes with --lr_policy poly_floor, not poly"),
        ("--long_side 448 768", "is of --train_transform long_side_crop, which is not chosen"),
        ("--train_transform multi_crop", "it goes with --method cam"),
        ("--method cam --image_tags masks --cam_dir HEAT", "--cam_dir is of --train_transform"),
        ("--scale_range 0.5 2", "of --train_transform scale_crop or resize_crop or fit_crop, wh"),
        ("--method cam --image_tags xml --loss_normalize all", "--loss_normalize is of pixel labe"),
        ("--patience 3 --val_split none", "--patience counts validations, and --val_split none"),
        ("--make_pseudo_masks --image_tags xml", "images and their maps alone: leave --image_tags"),
        ("--make_pseudo_masks --eval_flip", "reads maps, no network: leave --eval_flip out"),
        ("--label_damage 0.5 --pseudo_dir P", "and others are read: leave it out"),
        ("--weight_dir W --method mrnet", "which --method mrnet does not: leave it out"),
        ("--make_cams --make_pseudo_masks", "are two actions; give one"),
        ("--crf_iterations 5", "is of the making: add --make_pseudo_masks"),
    ],
)
def test_mistakes_in_weak_supervision_are_explained(capsys, argv, message):
    assert message in refused(capsys, *argv.split())
