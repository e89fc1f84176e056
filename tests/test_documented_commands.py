"""Every command that the README and the docs show has flags and values that exist."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from engine.catalogue import RECIPES
from engine.checkpoint import plain
from options import build_parser, parse
from utils.arguments import expand_files

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMAND = re.compile(r"(?:python|torchrun(?: --\w+ \d+)*) main\.py((?:[^`\n\\]|\\\n)*)")


def commands(page):
    """The arguments of each command of a page, those with ``...`` left out."""
    for match in COMMAND.finditer(page.read_text()):
        words = shlex.split(match[1].replace("\\\n", " "), comments=True)
        if "..." not in words and "|" not in words:
            yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_parse(page):
    parser, _ = build_parser()
    for words in commands(page):
        try:
            parser.parse_args(expand_files(words, RECIPES))
        except SystemExit:
            pytest.fail(f"{page.name} shows a command that does not parse: {shlex.join(words)}")


def test_there_are_commands():
    found = {page.name: sum(1 for _ in commands(page)) for page in PAGES}
    assert found["README.md"] > 20
    assert found["abet.md"] > 8
    assert found["urn.md"] > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_a_page_names_exist(page):
    named = re.findall(r"`((?:tests|benchmarks|scripts)/[\w/]+\.\w+)`", page.read_text())
    assert [path for path in named if not (ROOT / path).is_file()] == []


MADE_BY = {  # the action that writes the folder of a flag
    "cam_dir": "make_cams",
    "pseudo_dir": "make_pseudo_masks",
    "weight_dir": "make_response_weights",
}
GIVEN = {"MY_MASKS"}  # folders of the user
RELEASED = "SEAM.pth"  # a classifier that is to be had elsewhere


def test_the_commands_of_weak_supervision_follow_each_other(tmp_path, monkeypatch, capsys):
    """All checks pass, and what a command reads one before it has written."""
    (tmp_path / "recipes").symlink_to(RECIPES)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / RELEASED).touch()
    monkeypatch.chdir(tmp_path)
    made = set(GIVEN)
    for words in commands(ROOT / "docs" / "urn.md"):
        if "--sync_bn" in words:  # wants several GPUs
            continue
        try:
            opts = parse(words)
        except SystemExit:
            pytest.fail(f"{shlex.join(words)}: {capsys.readouterr().err}")
        if opts.predict:
            Path("predictions", opts.run_name).mkdir(parents=True)
        for flag, action in MADE_BY.items():
            folder = getattr(opts, flag)
            if folder is not None and getattr(opts, action):
                folder.mkdir()
                made.add(str(folder))
            assert folder is None or str(folder) in made, shlex.join(words)
        if opts.ckpt is None and opts.run_name and not opts.test_only:
            state = {"model_state": {"weight": torch.zeros(1)}, "opts": plain(opts)}
            torch.save(state, f"checkpoints/latest_{opts.run_name}.pth")
