"""A child of ``benchmarks.startup``: main.py up to its first step, with the time of each stage.

``python -m benchmarks.first_step BEGAN FOLDER`` prints seconds since BEGAN (``time.time()`` of the
parent) by stage as JSON, and ends without saving anything.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

FLAGS = ("--pretrained_backbone", "none", "--num_workers", "0", "--batch_size", "2")


def trace(began: float, folder: str) -> None:
    """Import, parse and run main.py, whose first step ends the process."""
    stages: dict[str, float] = {}

    def reached(stage: str) -> None:
        stages[stage] = time.time() - began

    reached("Python started")
    import torch  # noqa: F401
    import torchvision  # noqa: F401

    reached("torch, torchvision imported")
    import main
    from engine import train

    reached("main.py imported")
    parse, optimizer_step = main.parse, train.optimizer_step

    def traced_parse(argv: list[str]) -> Any:
        opts = parse(argv)
        reached("flags parsed")
        return opts

    def only_step(*arguments: Any) -> None:
        reached("data, model, first batch ready")
        optimizer_step(*arguments)
        reached("first step done")
        print(json.dumps(stages), flush=True)
        os._exit(0)

    main.parse = traced_parse  # type: ignore[assignment]
    train.optimizer_step = only_step  # type: ignore[assignment]
    main.main([*FLAGS, "--output_dir", folder])


if __name__ == "__main__":
    trace(float(sys.argv[1]), sys.argv[2])
