"""Stage one: which part trains what, and that processes share a batch without changing it."""

from contextlib import nullcontext

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from engine.train import optimizer_step, start
from losses.adversarial import discriminator_loss, gradient_penalty
from methods import METHODS
from methods.repeated_sgd import RepeatedSGD, listed_times
from options import parse
from tests.methods.toys import TwoHeads

CPU = torch.device("cpu")
CLASSES = 3
PUBLISHED = ("--lambda_seg", "0.5", "--lambda_kl_target", "0.1", "--mr_start", "0",
             "--class_balance", "--often_balance", "--max_value", "7", "--only_hard_label", "60",
             "--small_object_pixels", "40")  # fmt: skip


def flags(*more):
    return parse(
        [
            *("--method", "mrnet", "--target_dataset", "streets", "--lr", "0.01"),
            *("--backbone_lr_factor", "0.1", "--lr_policy", "step", "--train_bn", *more),
        ]
    )


def method_of(*more, seed=0):
    torch.manual_seed(seed)
    opts = flags(*more)
    return METHODS[opts.method](opts, CLASSES, TwoHeads(CLASSES))


def batch_of(images=4, seed=1, size=(12, 16)):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (images, *size), dtype=torch.uint8, generator=generator)
    labels[:, :3] = 255
    labels[0, 3:] = 0  # so that parts of the batch count their classes differently
    return {
        "image": torch.randn(images, 3, *size, generator=generator),
        "label": labels,
        "target_image": torch.randn(images, 3, *size, generator=generator),
        "id": [str(index) for index in range(images)],
    }


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_each_optimizer_has_its_own_parameters_and_all_are_there():
    method = method_of()
    owned = [
        parameter
        for optimizer in method.optimizers().values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(owned) == len(set(owned))
    assert set(owned) == set(method.parameters())
    assert list(method.optimizers()) == ["network", "discriminator_aux", "discriminator_main"]


def test_the_networks_loss_moves_no_discriminator_and_theirs_no_network():
    method = method_of(*PUBLISHED)
    losses = method.training_step(batch_of(), 0).losses
    losses["network"].backward()
    assert gradients(method.network)
    assert not gradients(method.discriminators)
    method.zero_grad()
    losses = method.training_step(batch_of(), 0).losses
    (losses["discriminator_aux"] + losses["discriminator_main"]).backward()
    assert not gradients(method.network)
    assert len(gradients(method.discriminators)) == len(list(method.discriminators.parameters()))


def test_the_alignment_term_is_that_of_the_live_discriminator():
    method = method_of(*PUBLISHED)
    batch = batch_of()
    target = method.network(batch["target_image"])
    for name, logits in (("aux", target.aux_logits), ("main", target.logits)):
        weight, found = method.alignment(target)[f"adversarial_{name}"]
        outputs = method.discriminators[name](logits.softmax(1))
        expected = sum(2 * (output - 1).square().mean() for output in outputs)
        torch.testing.assert_close(found, expected)
        assert weight == {"aux": 0.0002, "main": 0.001}[name]


def test_real_is_the_fused_source_prediction_and_fake_the_heads_own():
    method = method_of(*PUBLISHED)
    batch = batch_of()
    source, target = method.network(batch["image"]), method.network(batch["target_image"])
    found = method.discriminator_losses(source, target, 0)
    real = (source.logits + 0.5 * source.aux_logits).softmax(1).detach().requires_grad_()
    for name, fake in (("aux", target.aux_logits), ("main", target.logits)):
        rival = method.discriminators[name]
        outputs = rival(real)
        expected = discriminator_loss(rival(fake.softmax(1)), outputs)
        expected = expected + gradient_penalty(outputs, real)
        torch.testing.assert_close(found[f"discriminator_{name}"], expected)


def test_the_penalty_can_be_taken_every_few_steps_with_their_weight():
    every, rarely = method_of(), method_of("--r1_every", "4")
    batch = batch_of()
    with torch.no_grad():  # the first weights are so small that the penalty is, too
        for parameter in [*every.discriminators.parameters(), *rarely.discriminators.parameters()]:
            parameter.mul_(8)

    def loss(method, step):
        return method.training_step(batch, step).losses["discriminator_main"].item()

    penalty = loss(every, 0) - loss(rarely, 1)
    assert penalty > 0
    assert loss(rarely, 0) == pytest.approx(loss(rarely, 1) + 4 * penalty, rel=1e-4)
    assert loss(every, 1) == loss(every, 0)


def test_the_heads_are_held_together_from_their_first_step_on():
    method = method_of("--lambda_kl_target", "0.1", "--lambda_me_target", "0.1", "--mr_start", "5")
    before, after = (method.training_step(batch_of(), step) for step in (4, 5))
    assert not {"loss_agreement", "loss_entropy"} & before.logs.keys()
    extra = 0.1 * (after.logs["loss_agreement"] + after.logs["loss_entropy"])
    torch.testing.assert_close(after.losses["network"], before.losses["network"] + extra)


def test_without_weights_there_is_no_discriminator():
    method = method_of("--lambda_adv_target1", "0", "--lambda_adv_target2", "0")
    assert list(method.optimizers()) == ["network"]
    assert list(method.training_step(batch_of(), 0).losses) == ["network"]


def test_a_batch_without_labels_trains_on_its_target_alone(caplog):
    method = method_of("--lambda_adv_target1", "0", "--lambda_adv_target2", "0")
    batch = batch_of()
    batch["label"] = torch.full_like(batch["label"], 255)
    out = method.training_step(batch, 0)
    assert out.losses["network"] == 0
    out.losses["network"].backward()
    assert not any(grad.any() for grad in gradients(method).values())
    for _ in range(2):
        method.noticed({name: value.item() for name, value in out.logs.items()}, 3)
    assert [record.message for record in caplog.records] == [
        "step 3: no pixel has had a label since the last line"
    ]


def one_step(method, batch, module=None):
    training = start(method, method.opts, CPU)
    for step in range(2):
        training.step = step
        optimizer_step(module or method, [batch], training, nullcontext())
    return method.state_dict()


def of_processes(rank, folder, more):
    """One process: its half of the batch, two steps."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    method = method_of(*more)
    whole = batch_of()
    half = {name: value[2 * rank : 2 * rank + 2] for name, value in whole.items()}
    torch.save(one_step(method, half, DistributedDataParallel(method)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


SECOND = ("--method", "rectified", "--pseudo_dir", "x", "--rect_norm", "valid", "--class_balance",
          "--often_balance", "--stage2_target_forward", "--lambda_adv_target1", "0.0002",
          "--lambda_adv_target2", "0.001")  # fmt: skip


@pytest.mark.parametrize(
    "more", [PUBLISHED, (*PUBLISHED, "--hard_label_scope", "valid"), SECOND], ids=str
)
def test_two_processes_take_the_steps_of_one_with_the_whole_batch(tmp_path, more):
    mp.spawn(of_processes, (str(tmp_path), more), nprocs=2)
    shared = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    start_state = {name: value.clone() for name, value in method_of(*more).state_dict().items()}
    alone = one_step(method_of(*more), batch_of())
    moved = 0
    for name, value in alone.items():
        torch.testing.assert_close(shared[0][name], value, rtol=1e-4, atol=2e-6)
        assert torch.equal(shared[0][name], shared[1][name])
        moved += not torch.equal(value, start_state[name])
    assert moved > 0.9 * len(alone)
    assert "supervised_loss.balance.often_weights" in alone


def test_a_listed_parameter_has_the_times_of_the_published_list():
    stem = nn.Conv2d(3, 4, 1)
    block = nn.Module()
    block.conv, block.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    block.downsample = nn.Sequential(nn.Conv2d(4, 4, 1))
    times = listed_times([stem, nn.Sequential(block)])
    assert times[stem.weight] == 1
    assert times[block.conv.weight] == times[block.norm.weight] == 3
    assert times[block.downsample[0].weight] == 4


def test_one_update_a_step_is_torch_s_nesterov():
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    options = {"momentum": 0.9, "weight_decay": 5e-4}
    mine, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    repeated = RepeatedSGD([{"params": [mine]}], 0.1, times={}, **options)
    reference = torch.optim.SGD([theirs], 0.1, nesterov=True, **options)
    for step in range(4):
        for parameter, optimizer in ((mine, repeated), (theirs, reference)):
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
            optimizer.step()
    torch.testing.assert_close(mine, theirs)


def test_repeats_share_a_buffer_and_keep_the_decay():
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RepeatedSGD(
        [{"params": [parameter]}], 0.1, momentum=0.9, weight_decay=0.5, times={parameter: 3}
    )
    parameter.grad = torch.tensor([2.0], dtype=torch.float64)
    optimizer.step()
    value, gradient, buffer = 1.0, 2.0, None
    for _ in range(3):
        gradient += 0.5 * value
        buffer = gradient if buffer is None else 0.9 * buffer + gradient
        value -= 0.1 * (gradient + 0.9 * buffer)
    assert parameter.item() == pytest.approx(value, rel=1e-12)
    assert parameter.grad.item() == 2


MISTAKES = {
    ("--method", "mrnet"): "name them with --target_dataset",
    ("--method", "mrnet", "--target_dataset", "streets", "--model", "deeplabv3plus_mobilenet"): (
        "add --aux_head"
    ),
    ("--method", "mrnet", "--target_dataset", "streets", "--often_balance"): "--class_balance",
    ("--method", "mrnet", "--target_dataset", "streets", "--max_value", "0.5"): "--max_value",
    ("--method", "mrnet", "--target_dataset", "streets", "--lambda_seg", "-1"): "--lambda_seg",
    ("--method", "mrnet", "--target_dataset", "gta5"): "--target_root",
    ("--method", "mrnet", "--target_dataset", "streets", "--head_norm", "ln"): "--head_norm",
    ("--target_dataset", "streets"): "--method mrnet",
    ("--target_flip", "0.5"): "--target_dataset",
    ("--mr_start", "5"): "--method mrnet or rectified",
    ("--pseudo_loss", "plain"): "--method rectified",
    ("--method", "mrnet", "--target_dataset", "streets", "--pseudo_loss", "plain"): "rectified",
    ("--lr_repeat", "faithful"): "--optimizer sgd",
    ("--warm_up", "9", "--lr_policy", "step"): "--lr_policy poly",
    ("--nesterov",): "--optimizer sgd",
    ("--autoaug", "False"): "--autoaug takes no value",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(list(arguments))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert MISTAKES[arguments] in said
    assert said.count("\n") == 1
