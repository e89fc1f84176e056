"""Checkpoints: written whole or not at all, read without running code, mismatches explained."""

from __future__ import annotations

import pickle
import re
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datasets.taxonomy import SegClass
from engine.averaging import WeightAverage
from engine.mismatch import all_of_head, describe_mismatch, last_layer
from methods.base import Method
from network import from_published
from utils.distributed import all_gather_object, is_main, rank
from utils.files import open_atomically
from utils.provenance import git_state

FORMAT = 1
BATCH_COUNTER = "num_batches_tracked"
PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")

# Published files hold best_score as a NumPy float64: its reconstruction, and nothing else.
NUMPY_SCALAR: list[Any] = [
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    (multiarray.scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
]


@dataclass
class Training:
    """What of a run changes from step to step and has to survive a restart."""

    method: Method
    optimizers: dict[str, Optimizer]
    schedules: dict[str, LRScheduler]
    scaler: GradScaler
    step: int = 0
    best_score: float | None = None
    stale: int = 0  # validations since the best one
    member_scores: dict[str, float] = field(default_factory=dict)  # best of each member
    average: WeightAverage | None = None  # of the deployable network, where one is kept

    @contextmanager
    def deployed(self) -> Iterator[dict[str, Any]]:
        """The deployable network holds the averaged weights inside, if there are any.

        The value is what a checkpoint has to hold beside them to go on training.
        """
        if self.average is None:
            yield {}
            return
        with self.average.deployed() as trained:
            yield {"trained_state": trained}


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Published files, files with the prefix ``module.`` and bare state dicts are accepted; of the
    latter only ``model_state`` is filled.

    Raises:
        ValueError: if the file is absent, truncated, not a checkpoint, or would run code.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALAR):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(
            r"(?:GLOBAL|Unsupported (?:global|class)[^A-Za-z]*)\s*([\w.]+)", str(error)
        )
        reason = f"it asks for {asked[1]}" if asked else "it is no file of tensors"
        raise ValueError(
            f"{path} is not a checkpoint that can be loaded safely: {reason}"
        ) from None
    except PermissionError as error:
        raise ValueError(f"{path} may not be read: {error.strerror}") from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError):
        size = path.stat().st_size
        raise ValueError(f"{path} ({size} bytes) is truncated or not a checkpoint") from None
    return normalise(content, path)


def normalise(content: Any, path: Path) -> dict[str, Any]:
    """Bring the accepted forms of a file's content to the one with ``model_state``."""
    if isinstance(content, dict):
        for key in ("model_state", "state_dict", "model"):
            if isinstance(content.get(key), dict):
                content = {**content, "model_state": content[key]}
                break
        else:
            content = {"model_state": content}
        state = content["model_state"]
        if state and all(isinstance(value, Tensor) for value in state.values()):
            named = {PREFIX.sub("", key): value for key, value in state.items()}
            content["model_state"] = from_published(named)
            return content
    raise ValueError(f"{path} holds no network: expected model_state, a dict of named tensors")


def plain(opts: Namespace) -> dict[str, Any]:
    """The flags as values that a safe load and JSON can hold."""
    return {name: without_paths(value) for name, value in vars(opts).items() if name != "typed"}


def without_paths(value: Any) -> Any:
    """A flag's value with paths, also those in a list, as texts."""
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def by_name(parts: dict[str, Any]) -> Any:
    """States of optimizers or schedules: plain for one, as published, else by name."""
    states = {name: part.state_dict() for name, part in parts.items()}
    return next(iter(states.values())) if len(states) == 1 else states


def load_by_name(parts: dict[str, Any], state: Any) -> None:
    """The inverse of ``by_name``."""
    states = {next(iter(parts)): state} if len(parts) == 1 else state
    for name, part in parts.items():
        part.load_state_dict(states[name])


def method_state(method: Method) -> dict[str, Tensor]:
    """The method's tensors that are not in the deployable network."""
    deployed = {id(tensor) for tensor in method.deployable().state_dict(keep_vars=True).values()}
    return {
        name: tensor.detach()
        for name, tensor in method.state_dict(keep_vars=True).items()
        if id(tensor) not in deployed
    }


def rng_state() -> dict[str, Tensor]:
    """This process's generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def save(
    paths: list[Path],
    training: Training,
    *,
    opts: Namespace,
    classes: tuple[SegClass, ...],
    sampler: dict,
) -> None:
    """Write the run's state to every path, each whole or not at all.

    Called on every process; the first one writes.

    Raises:
        OSError: if a file cannot be written; whatever was there before is still there.
    """
    rng = all_gather_object(rng_state())
    if not is_main():
        return
    content = {
        "optimizer_state": by_name(training.optimizers),
        "scheduler_state": by_name(training.schedules),
        "best_score": training.best_score,
        "stale": training.stale,
        "member_scores": training.member_scores,
        "method_state": method_state(training.method),
        "scaler": training.scaler.state_dict(),
        "sampler": sampler,
        "rng": rng,
    }
    with training.deployed() as trained:
        network = network_content(training.method.deployable(), training.step, opts, classes)
        for path in paths:
            write(path, {**network, **trained, **content})


def save_member(
    path: Path, name: str, training: Training, *, opts: Namespace, classes: tuple[SegClass, ...]
) -> None:
    """Write one member of an ensemble as the checkpoint of a network of its own.

    Args:
        path: of the checkpoint.
        name: of the member.
        training: the ensemble's.
        opts: flags that describe the member alone.
        classes: by train id.

    Raises:
        OSError: as ``save`` does.
    """
    if not is_main():
        return
    content = {
        "optimizer_state": training.optimizers[name].state_dict(),
        "scheduler_state": training.schedules[name].state_dict(),
        "best_score": training.member_scores[name],
    }
    with training.deployed():
        member = training.method.members()[name]
        write(path, {**network_content(member, training.step, opts, classes), **content})


def network_content(
    network: nn.Module, step: int, opts: Namespace, classes: tuple[SegClass, ...]
) -> dict[str, Any]:
    """What every checkpoint holds: a network, how it was made, what its classes are."""
    return {
        "cur_itrs": step,
        "model_state": network.state_dict(),
        "format": FORMAT,
        "opts": plain(opts),
        "classes": [entry.name for entry in classes],
        "colours": [entry.colour for entry in classes],
        "commit": git_state()[0],
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    with open_atomically(path) as file:
        torch.save(content, file)


def exhausted(stale: int, patience: int | None) -> bool:
    """Whether that many validations without improvement end a run of that ``--patience``."""
    return patience is not None and stale >= patience


def last_step(opts: Namespace) -> int:
    """Steps after which a run ends: ``--stop_itrs``, or ``--total_itrs`` as its schedule does."""
    return min(opts.total_itrs, opts.stop_itrs or opts.total_itrs)


def finished(content: dict[str, Any], opts: Namespace) -> bool:
    """Whether a checkpoint's content is the end of a run with these flags."""
    steps: int = content["cur_itrs"]
    return steps >= last_step(opts) or exhausted(content.get("stale", 0), opts.patience)


def resume(content: dict[str, Any], path: Path, training: Training) -> None:
    """Bring a run to the state that ``save`` wrote.

    Raises:
        ValueError: if the file was not written by this program, or does not fit the flags.
    """
    if "rng" not in content:
        raise ValueError(
            f"{path} has weights but not the state of a run of this program:"
            " start a new run from it with --ckpt, without --continue_training"
        )
    trained = content.get("trained_state", content["model_state"])
    load_network(training.method.deployable(), trained, path)
    if training.average is not None:
        training.average.load(content["model_state"])
    problem = training.method.load_state_dict(content["method_state"], strict=False)
    if problem.unexpected_keys or set(problem.missing_keys) & set(method_state(training.method)):
        raise ValueError(f"{path} was written by another method than this run's")
    load_by_name(training.optimizers, content["optimizer_state"])
    load_by_name(training.schedules, content["scheduler_state"])
    training.scaler.load_state_dict(content["scaler"])
    training.step = content["cur_itrs"]
    training.best_score = content["best_score"]
    training.stale = content.get("stale", 0)
    training.member_scores = dict(content.get("member_scores", {}))
    rng = content["rng"][rank() % len(content["rng"])]
    torch.set_rng_state(rng["cpu"])
    if "cuda" in rng and torch.cuda.is_available():
        torch.cuda.set_rng_state(rng["cuda"])


def load_network(
    network: nn.Module, state: dict[str, Tensor], path: Path, *, reset_head: bool = False
) -> list[str]:
    """Load weights by name and return the names left as they were.

    Args:
        network: takes the weights.
        state: named tensors.
        path: named in errors.
        reset_head: leave the last layer as it is, and a learned temperature where only one side
            has one.

    Raises:
        ValueError: listing the tensors that do not fit and the flag that would.
    """
    own = network.state_dict()
    # Norms in files of an old torch do not count their batches; loading fills that in.
    there = {name.replace("running_mean", BATCH_COUNTER) for name in state} | state.keys()
    missing = [name for name in own if name not in there]
    extra = [name for name in state if name not in own]
    unlike = [name for name in own if name in state and own[name].shape != state[name].shape]
    if reset_head and all_of_head((*missing, *unlike), own) and all_of_head(extra, state):
        left = {*missing, *unlike, *last_layer(own)}
        kept = {k: v for k, v in state.items() if k in own and k not in left}
        network.load_state_dict(kept, strict=False)
        return [name for name in own if name in left]
    if missing or extra or unlike:
        raise ValueError(describe_mismatch(own, state, path, missing, extra, unlike))
    network.load_state_dict(state)
    return []
