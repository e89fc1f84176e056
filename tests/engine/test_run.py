"""Names of runs, and who may write their files."""

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.run import (
    FinishedRun,
    Run,
    claim,
    draw_seed,
    network_name,
    refuse_other_result,
    result_file,
    run_name,
)


def flags(tmp_path, **changes):
    values = {
        "model": "deeplabv3plus_mobilenet",
        "dataset": "acdc",
        "output_stride": 16,
        "random_seed": 7,
        "method": "supervised",
        "loss_type": "cross_entropy",
        "backbone": None,
        "separable_conv": False,
        "dropout": 0.0,
        "head": "linear",
        "temperature": "none",
        "condition": None,
        "run_name": None,
        "mc_samples": None,
        "lr": 0.1,
        "total_itrs": 100,
        "stop_itrs": None,
        "continue_training": False,
        "overwrite": False,
        "ckpt": None,
        "output_dir": tmp_path,
        "val_split": "val",
        "external": None,
        "logits_dir": None,
        "eval_on": None,
        "scenes": None,
        "corruption": None,
        "patience": None,
        "typed": frozenset(),
    }
    return Namespace(**{**values, **changes})


def left_by(opts, step=None):
    """What a run with these flags leaves at a step, or before its first checkpoint."""
    run = Run(run_name(opts), opts.output_dir)
    run.folder.mkdir(parents=True)
    stored = {
        k: str(v) if isinstance(v, Path) else v for k, v in vars(opts).items() if k != "typed"
    }
    run.opts_file.write_text(json.dumps({"opts": stored}))
    if step is not None:
        run.checkpoint("latest").parent.mkdir(parents=True, exist_ok=True)
        content = {"cur_itrs": step, "model_state": {"w": torch.ones(1)}, "opts": stored}
        torch.save(content, run.checkpoint("latest"))
    return run


def test_the_published_name_and_its_tag(tmp_path):
    assert run_name(flags(tmp_path)) == "deeplabv3plus_mobilenet_acdc_os16_seed7"
    tagged = flags(tmp_path, loss_type="focal_loss", dropout=0.2, condition="fog")
    assert run_name(tagged).endswith("_seed7_focal_loss-dropout0.2-fog")
    assert run_name(flags(tmp_path, run_name="mine")) == "mine"
    assert Run("x", tmp_path).checkpoint("best") == tmp_path / "checkpoints" / "best_x.pth"


def test_a_new_name_is_free(tmp_path):
    opts = flags(tmp_path)
    assert claim(Run(run_name(opts), tmp_path), opts) is None


def test_a_finished_run_is_told_apart(tmp_path):
    opts = flags(tmp_path)
    run = left_by(opts, step=100)
    with pytest.raises(FinishedRun, match="is finished"):
        claim(run, opts)


def test_other_flags_are_refused_by_name_and_value(tmp_path):
    run = left_by(flags(tmp_path), step=50)
    with pytest.raises(ValueError, match=r"--lr 0.2 \(there 0.1\).*--run_name.*--overwrite"):
        claim(run, flags(tmp_path, lr=0.2))


def test_maps_that_were_made_otherwise_are_other_flags(tmp_path):
    run = left_by(flags(tmp_path, **{"weight_dir decoder": "crf"}), step=50)
    with pytest.raises(ValueError, match=r"--weight_dir decoder argmax \(there crf\)"):
        claim(run, flags(tmp_path, **{"weight_dir decoder": "argmax"}))


def test_incidental_flags_do_not_matter(tmp_path):
    run = left_by(flags(tmp_path), step=100)
    with pytest.raises(FinishedRun):
        claim(run, flags(tmp_path, output_dir=tmp_path, run_name=None, gpu_id="3"))


@pytest.mark.parametrize(("step", "where"), [(50, "step 50 of 100"), (None, "its start")])
def test_an_unfinished_run_wants_to_be_asked(tmp_path, step, where):
    run = left_by(flags(tmp_path), step=step)
    with pytest.raises(ValueError, match=f"stopped at {where}.*--continue_training"):
        claim(run, flags(tmp_path))


def test_a_flag_that_came_after_the_run_matters_only_where_it_is_typed(tmp_path):
    old = flags(tmp_path)
    left_by(old, step=50)
    new = flags(tmp_path, newer=15, continue_training=True)
    assert claim(Run(run_name(new), tmp_path), new)["cur_itrs"] == 50
    new.typed = frozenset({"newer"})
    with pytest.raises(ValueError, match=r"--newer 15 \(there None\)"):
        claim(Run(run_name(new), tmp_path), new)


def test_continuing_gives_the_latest_checkpoint(tmp_path):
    run = left_by(flags(tmp_path), step=50)
    assert claim(run, flags(tmp_path, continue_training=True))["cur_itrs"] == 50


def test_continuing_a_run_without_a_checkpoint_starts_it(tmp_path):
    run = left_by(flags(tmp_path))
    assert claim(run, flags(tmp_path, continue_training=True)) is None


def test_going_back_behind_the_latest_is_refused(tmp_path):
    run = left_by(flags(tmp_path), step=50)
    earlier = tmp_path / "best.pth"
    torch.save({"cur_itrs": 20, "model_state": {"w": torch.ones(1)}}, earlier)
    with pytest.raises(ValueError, match="is at step 20.*is at step 50"):
        claim(run, flags(tmp_path, continue_training=True, ckpt=earlier))


def test_overwrite_claims_anything(tmp_path):
    run = left_by(flags(tmp_path), step=50)
    assert claim(run, flags(tmp_path, overwrite=True, lr=3.0)) is None


def test_a_foreign_checkpoint_is_not_overwritten(tmp_path):
    run = Run("mine", tmp_path)
    run.checkpoint("best").parent.mkdir()
    torch.save({"w": torch.ones(1)}, run.checkpoint("best"))
    with pytest.raises(ValueError, match="written by another program"):
        claim(run, flags(tmp_path, run_name="mine"))


def test_a_drawn_seed_is_in_the_name(tmp_path):
    opts = flags(tmp_path, random_seed=-1)
    draw_seed(opts)
    assert 0 <= opts.random_seed < 10**7
    assert f"seed{opts.random_seed}" in run_name(opts)


def test_continuing_a_drawn_seed_finds_the_one_run(tmp_path):
    left_by(flags(tmp_path, random_seed=42), step=50)
    opts = flags(tmp_path, random_seed=-1, continue_training=True)
    draw_seed(opts)
    assert opts.random_seed == 42


def test_continuing_a_drawn_seed_needs_one_run(tmp_path):
    opts = flags(tmp_path, random_seed=-1, continue_training=True)
    with pytest.raises(ValueError, match="there is none"):
        draw_seed(opts)
    for seed in (1, 2):
        left_by(flags(tmp_path, random_seed=seed), step=50)
    with pytest.raises(ValueError, match=r"seed1\.pth, .*seed2\.pth.*--ckpt or --random_seed N"):
        draw_seed(opts)


ACDC = SimpleNamespace(name="acdc", split="val")


def test_results_are_named_after_network_images_and_calibrator(tmp_path):
    opts = flags(tmp_path, ckpt=tmp_path / "best_x.pth", condition="fog")
    name = network_name(opts, "abc")
    assert result_file(opts, name, ACDC).name == "best_x_on_acdc_val_fog.json"
    assert result_file(opts, name, ACDC, "vector-acdc_val").stem.endswith("_fog_vector-acdc_val")
    opts.scenes, opts.corruption = ["a", "b"], "snow:3"
    assert result_file(opts, name, ACDC).stem == "best_x_on_acdc_val_fog_a+b_snow-3"
    joined = flags(tmp_path, model="deep_ensemble", weight=["a", "b"], mc_samples=5)
    name = network_name(joined, "0123456789abc")
    assert result_file(joined, name, ACDC).stem == "deep_ensemble2-01234567_on_acdc_val_mc5"
    assert network_name(flags(tmp_path, external="models.zoo:b0"), "abc") == "models.zoo-b0"
    assert network_name(flags(tmp_path, logits_dir=tmp_path / "mine"), "abc") == "mine"


def test_results_on_several_parts_are_named_after_all_of_them(tmp_path):
    def name(*parts):
        opts = flags(tmp_path, ckpt=tmp_path / "best_x.pth", eval_on=list(parts))
        return result_file(opts, "best_x", SimpleNamespace(name="acdc+idd", split="val")).stem

    assert name("acdc", "idd").startswith("best_x_on_acdc+idd_val_2parts-")
    assert name("acdc", "idd") == name("acdc", "idd")
    assert name("acdc", "idd") != name("acdc", "idd,scene=a")


def test_results_of_others_are_kept(tmp_path):
    opts = flags(tmp_path, ckpt=tmp_path / "best_x.pth", condition="fog")
    path = result_file(opts, network_name(opts, "abc"), ACDC)
    refuse_other_result(path, opts, "abc")
    path.parent.mkdir()
    path.write_text(json.dumps({"checkpoint": {"sha256": "abc"}, "opts": {"lr": 0.5}}))
    with pytest.raises(ValueError, match="another checkpoint"):
        refuse_other_result(path, opts, "def")
    with pytest.raises(ValueError, match=r"other flags: .*--overwrite"):
        refuse_other_result(path, opts, "abc")
    with pytest.raises(ValueError, match="another calibrator"):
        refuse_other_result(path, opts, "abc", "a calibrator's hash")
