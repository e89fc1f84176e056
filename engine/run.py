"""A run's name and files, and who may write them."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.base import SegDataset
from engine import checkpoint
from methods.ensemble import member_flags
from utils.distributed import broadcast_object
from utils.files import remove_leftovers
from utils.folder_locks import held_folder

# Flags that change where or how fast a run goes, or what is shown of it, but not what it computes.
INCIDENTAL = frozenset(
    {
        *("data_root", "cache", "num_workers", "download", "print_interval", "gpu_id", "ckpt"),
        *(
            "stop_itrs",
            "init",
            "continue_training",
            "overwrite",
            "output_dir",
            "run_name",
            "traceback",
            "enable_vis",
        ),
        *("vis_port", "vis_env", "vis_num_samples", "save_val_results", "server_format"),
        *("test_only", "predict", "check_data", "list", "save_probs", "metrics", "scores"),
        *("make_uncertainty_masks", "make_pseudo_labels", "weight", "report"),
        *("make_cams", "make_pseudo_masks", "make_response_weights", "crf_workers"),
        *("fit_calibrator", "fit_score"),
        *("report_dir", "baseline", "minority", "bootstrap", "robustness_source", "lts_cache_gb"),
    }
)


@dataclass(frozen=True)
class Run:
    """Where a run of a name keeps its files."""

    name: str
    output_dir: Path

    def checkpoint(self, kind: str) -> Path:
        """The ``best`` or the ``latest`` checkpoint."""
        return self.output_dir / "checkpoints" / f"{kind}_{self.name}.pth"

    @property
    def folder(self) -> Path:
        """Flags, metrics, curves."""
        return self.output_dir / "runs" / self.name

    @property
    def opts_file(self) -> Path:
        """The flags the run was started with."""
        return self.folder / "opts.json"


def run_name(opts: Namespace) -> str:
    """``--run_name``, or the published name followed by what differs from plain cross entropy."""
    if opts.run_name:
        return str(opts.run_name)
    tag = [
        opts.method if opts.method not in ("supervised", opts.model) else "",
        opts.loss_type if opts.loss_type != "cross_entropy" else "",
        f"alpha{opts.alpha:g}" if opts.loss_type == "uce" else "",
        opts.backbone or "",
        "separable" if opts.separable_conv else "",
        f"dropout{opts.dropout:g}" if opts.dropout else "",
        opts.head if opts.head != "linear" else "",
        "temperature" if opts.temperature != "none" else "",
        opts.condition or "",
    ]
    name = f"{opts.model}_{opts.dataset}_os{opts.output_stride}_seed{opts.random_seed}"
    return "_".join([name, *filter(None, ["-".join(filter(None, tag))])])


def member_run_name(opts: Namespace, member: str) -> str:
    """The name of the best checkpoint of an ensemble's member: as a run of its own would have."""
    if opts.run_name:
        return f"{opts.run_name}_{member}"
    model, _, place = member.partition("-")
    return "-".join(filter(None, (run_name(member_flags(opts, model)), place)))


def identity(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that say what a run computes, as JSON holds them."""
    return {
        name: json.loads(json.dumps(value))
        for name, value in flags.items()
        if name not in INCIDENTAL
    }


def differing_flags(opts: Namespace, stored: dict[str, Any]) -> list[str]:
    """What an existing run has otherwise, one text a flag: ``--lr 0.1 (there 0.01)``.

    A flag that the run does not know came later; it differs only where it is typed.
    """
    mine, theirs = identity(checkpoint.plain(opts)), identity(stored)
    return [
        f"--{name} {mine.get(name)} (there {theirs.get(name)})"
        for name in sorted(theirs.keys() | (mine.keys() & opts.typed))
        if mine.get(name) != theirs.get(name)
    ]


def stored_run_flags(run: Run) -> dict[str, Any] | None:
    """The flags of the run that owns this name, None if nobody does.

    Raises:
        ValueError: if there are checkpoints of this name that no run of this program wrote.
    """
    if run.opts_file.is_file():
        return dict(json.loads(run.opts_file.read_text())["opts"])
    for kind in ("latest", "best"):
        path = run.checkpoint(kind)
        if path.exists():
            stored = checkpoint.read(path).get("opts")
            if stored is None:
                raise ValueError(
                    f"{path} exists and was written by another program:"
                    " choose --run_name, or replace it with --overwrite"
                )
            return dict(stored)
    return None


def training_alone(run: Run) -> AbstractContextManager[None]:
    """Keep other processes from training a run of this name during a block.

    Raises:
        ValueError: if one does.
    """
    return held_folder(
        run.folder,
        f"run {run.name} is being trained by another process: wait for it, or choose another"
        " --run_name",
    )


def claim(run: Run, opts: Namespace) -> dict[str, Any] | None:
    """Decide whether a run may write files of its name.

    Returns:
        The content of the latest checkpoint to go on from, or None for a fresh start.

    Raises:
        ValueError: if the files belong to a run with other flags, or to an unfinished one that
            was not asked to be continued.
        FinishedRun: if the very same run has finished.
    """
    for kind in ("best", "latest"):
        remove_leftovers(run.checkpoint(kind))
    if opts.overwrite:
        return None
    stored = stored_run_flags(run)
    if stored is None:
        return None
    if differing := differing_flags(opts, stored):
        shown = ", ".join(differing[:6]) + (", ..." if len(differing) > 6 else "")
        raise ValueError(
            f"a run called {run.name} exists with other flags: {shown}. Choose another --run_name,"
            " type its flags to go on with --continue_training, or replace it with --overwrite"
        )
    latest = run.checkpoint("latest")
    content = checkpoint.read(latest) if latest.is_file() else None
    if opts.continue_training and opts.ckpt is not None:
        content = named_content(opts.ckpt, latest, content)
    if content is not None and checkpoint.finished(content, opts):
        raise FinishedRun(f"run {run.name} is finished: {latest}, logs in {run.folder}")
    if not opts.continue_training:
        at = f"step {content['cur_itrs']}" if content else "its start"
        raise ValueError(
            f"run {run.name} stopped at {at} of {opts.total_itrs}: go on with --continue_training,"
            " or start again with --overwrite"
        )
    return content


def named_content(
    path: Path, latest: Path, latest_content: dict[str, Any] | None
) -> dict[str, Any]:
    """The checkpoint that ``--ckpt`` names to go on from, unless the run has got further."""
    content = checkpoint.read(path)
    at, furthest = content.get("cur_itrs", 0), (latest_content or {}).get("cur_itrs", 0)
    if at < furthest:
        raise ValueError(
            f"{path} is at step {at}, and going on from it would overwrite {latest}, which is at"
            f" step {furthest}: give --ckpt {latest}, or start a new run under --run_name"
        )
    return content


class FinishedRun(Exception):  # noqa: N818 - not an error: the program ends with 0
    """The run that was asked for has already finished."""


def draw_seed(opts: Namespace) -> None:
    """Replace ``--random_seed -1`` by a seed, the same on every process.

    To continue a run, it is the seed of the only run that the flags name apart from it.

    Raises:
        ValueError: if there is no such run, or more than one.
    """
    if opts.random_seed >= 0:
        return
    seed = find_seed(opts) if opts.continue_training else secrets.randbelow(10**7)
    opts.random_seed = broadcast_object(seed)


def find_seed(opts: Namespace) -> int:
    """The seed of the only run that these flags name apart from its seed.

    Raises:
        ValueError: if there is none, or more than one.
    """
    pattern = run_name(Namespace(**{**vars(opts), "random_seed": "*"}))
    found = sorted((opts.output_dir / "checkpoints").glob(f"latest_{pattern}.pth"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            "--continue_training with --random_seed -1 needs the one run to go on with; there is"
            f" {names}: name it with --ckpt or --random_seed N"
        )
    return int(checkpoint.read(found[0])["opts"]["random_seed"])


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network_name(opts: Namespace, sha256: str) -> str:
    """What files made with a trained network are called, from its checkpoints and their hash."""
    if opts.external:
        return safe_part(opts.external)
    if opts.logits_dir:
        return safe_part(Path(opts.logits_dir).resolve().name)
    if opts.model != "deep_ensemble":
        return str(opts.ckpt.stem)
    return f"deep_ensemble{len(opts.weight)}-{sha256[:8]}"


def safe_part(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^\w\-.+]+", "-", text)


def joint_hash(paths: Sequence[Path]) -> str:
    """SHA-256 of a file, or of the hashes of several."""
    hashes = [file_hash(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def tested_name(opts: Namespace, dataset: SegDataset) -> str:
    """What is evaluated, for file names: data set, split and what narrows or changes it."""
    if opts.eval_on:
        parts = f"{len(opts.eval_on)}parts-" if len(opts.eval_on) > 1 else ""
        digest = hashlib.sha256(" ".join(opts.eval_on).encode()).hexdigest()[:8]
        return safe_part(f"{dataset.name}_{dataset.split}_{parts}{digest}")
    scenes = "+".join(opts.scenes or ())
    named = (dataset.name, opts.val_split, opts.condition, scenes, opts.corruption)
    return safe_part("_".join(filter(None, named)))


def result_file(
    opts: Namespace, network: str, dataset: SegDataset, calibrator: str | None = None
) -> Path:
    """Where ``--test_only`` writes: named after the network, what it is tested on and how."""
    dropout = f"mc{opts.mc_samples}" if opts.mc_samples else None
    tested = "_".join(filter(None, (tested_name(opts, dataset), dropout, calibrator)))
    name = opts.run_name or f"{network}_on_{tested}"
    return Path(opts.output_dir) / "results" / f"{name}.json"


def refuse_other_result(
    path: Path, opts: Namespace, checkpoint_hash: str, calibrator_hash: str | None = None
) -> None:
    """Refuse to overwrite the result of another checkpoint or calibrator, or of other flags.

    Raises:
        ValueError: naming the file and the flags that would help.
    """
    if opts.overwrite or not path.is_file():
        return
    there = json.loads(path.read_text())
    if there["checkpoint"]["sha256"] != checkpoint_hash:
        what = "another checkpoint"
    elif (there.get("calibrator") or {}).get("sha256") != calibrator_hash:
        what = "another calibrator"
    elif differing := differing_flags(opts, there["opts"]):
        what = f"other flags: {', '.join(differing[:6])}"
    else:
        return
    raise ValueError(
        f"{path} holds the result of {what}; name this one with --run_name or give --overwrite"
    )
