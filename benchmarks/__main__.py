"""Run benchmarks: ``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from pathlib import Path

import cv2
import torch

from benchmarks.report import Section, Settings, facts_table, machine_facts
from network.modeling import MODELS, TIMM

BENCHMARKS = {
    "training_step": "seconds per step against segmentation_models_pytorch",
    "validation": "cost of the evaluation pass over bare inference",
    "loading": "PNG images to batches against the upstream's way",
    "confusion_matrix": "counting one full-size map against the upstream's way",
    "mask_files": "uncertainty masks on disk against .npy and images; --ckpt FILE for real ones",
    "heads": "cosine head with learned temperature against a linear one; --model, --size",
    "instance_mask": "instance uncertainty against a loop over the components",
    "online_ensemble": "cost of the instance uncertainty in a step of the online ensemble",
    "stage_one": "parts of a step of MRNet's stage one, and its options; --model, --size",
    "ranking": "AUROC, AUPR and FPR95 of 20 million pixels against two libraries",
    "calibration_error": "ECE of 2 and 20 million pixels against torchmetrics",
    "components": "component metrics of one map with 500 components against a loop",
    "relaxed_boundary": "relaxed boundary target and loss against the published way",
    "response_scaling": "response scaling of one map in closed form against decoding every map",
    "response_weights": "response weights of images, decoded beside inference and after it",
    "dense_crf": "dense CRF: lattices, iterations, batches, and pydensecrf2 where installed",
    "temperature_search": "the best of 950 temperatures against trying them all",
    "reliability": "cost of all reliability metrics over bare inference",
    "corruptions": "milliseconds of each corruption beside decoding a PNG",
    "startup": "from the command line to the first step",
}
# Of some benchmarks, keywords of their ``run``.
OWN_FLAGS = dict.fromkeys(("heads", "stage_one"), ("model", "size", "crop_size"))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    listed = "\n".join(f"  {name:18}{what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Measure the project side by side with what it is compared to.",
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="which to run; none means all")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--quick", action="store_true", help="tiny inputs, two repeats: only to see that it works")
    add("--threads", type=int, default=1, help="of torch and OpenCV on the CPU")
    add("--repeats", type=int, help="measured rounds; default: each benchmark's own number")
    add("--ckpt", type=Path, metavar="FILE", help="network whose predictions mask_files stores")
    add(
        "--model",
        choices=[name for name in MODELS if MODELS[name].backbone != TIMM],
        metavar="NAME",
        help="of heads and stage_one: the network; default: deeplabv3plus_mobilenet; stage_one on a"
        " GPU: deeplab_multi_resnet101",
    )
    add(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="of heads: of evaluated images; of stage_one: of images to train on",
    )
    add(
        "--crop_size",
        type=int,
        metavar="SIDE",
        help="of heads: of images to train on; of stage_one: of source images, if not --size",
    )
    add("--json", type=Path, metavar="FILE", help="also write every number there")
    chosen = parser.parse_args(argv)
    for name in chosen.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name}; there are {', '.join(BENCHMARKS)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch finds no GPU")
    return chosen


def settle(chosen: argparse.Namespace) -> Settings:
    """Bring threads and numerics to the state in which everything is measured."""
    torch.set_num_threads(chosen.threads)
    cv2.setNumThreads(chosen.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda", 0) if chosen.device == "cuda" else torch.device("cpu")
    return Settings(device, chosen.quick, chosen.threads, chosen.repeats, chosen.ckpt)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks, print each section as soon as it is there, write the JSON file."""
    chosen = parse(argv)
    settings = settle(chosen)
    facts = machine_facts(settings)
    typed = sys.argv[1:] if argv is None else argv
    print(f"`{shlex.join(['python', '-m', 'benchmarks', *typed])}`\n\n{facts_table(facts)}\n")
    sections: dict[str, Section] = {}
    for name in chosen.names or BENCHMARKS:
        given = {flag: getattr(chosen, flag) for flag in OWN_FLAGS.get(name, ())}
        typed_in = {flag: value for flag, value in given.items() if value is not None}
        sections[name] = importlib.import_module(f"benchmarks.{name}").run(settings, **typed_in)
        print(f"{sections[name].markdown()}\n", flush=True)
        if chosen.json:  # after each one, so that an interrupted run leaves what it has
            content = {name: section.plain() for name, section in sections.items()}
            chosen.json.write_text(json.dumps({"machine": facts, "benchmarks": content}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
