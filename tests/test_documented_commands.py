"""Every command that the README and the docs show has flags and values that exist."""

import re
import shlex
from pathlib import Path

import pytest

from engine.catalogue import RECIPES
from options import build_parser
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
