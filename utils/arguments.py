"""Command-line arguments: types with helpful errors, files of flags, one-line errors."""

from __future__ import annotations

import difflib
import shlex
from argparse import (
    SUPPRESS,
    Action,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn


class Parser(ArgumentParser):
    """An argument parser whose errors are one line, without the usage of a hundred flags."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with 2."""
        self.exit(2, f"main.py: error: {message}\n")


class Repeated(Action):
    """A flag whose every use adds a value; the first one typed replaces a default list."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None
    ) -> None:
        """Add one value."""
        given = getattr(namespace, self.dest)
        started = [] if given is None or given is self.default else given
        setattr(namespace, self.dest, [*started, values])


class Flat(Action):
    """A flag with several values of which each stands for a list, joined without repeats."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None
    ) -> None:
        """Join the lists."""
        setattr(namespace, self.dest, list(dict.fromkeys(one for each in values for one in each)))


class Help(RawDescriptionHelpFormatter):
    """Help with one line for most flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=110)


def shorten_help(actions: Iterable[Action]) -> None:
    """Name values X rather than after their flag, and end each help text with the default."""
    for action in actions:
        if action.nargs != 0 and action.metavar is None and action.choices is None:
            action.metavar = "X"
        if action.default not in (None, False, SUPPRESS):
            default = action.default
            if isinstance(default, tuple | list):
                default = ("x" if isinstance(default[0], int) else " ").join(map(str, default))
            elif isinstance(default, float):
                default = f"{default:.4g}"
            action.help = f"{action.help or ''} [{default}]".strip()


def choice(what: str, values: Iterable[str]) -> Callable[[str], str]:
    """An argparse type for one of ``values``, whose error names the nearest of them."""
    known = tuple(values)

    def parse_choice(text: str) -> str:
        """The text, if it is one of the values."""
        if text in known:
            return text
        near = difflib.get_close_matches(text, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
        raise ArgumentTypeError(f"no {what} is called {text!r}; {hint}")

    return parse_choice


def size(text: str) -> tuple[int, int]:
    """An argparse type: ``768`` or ``HxW`` to (height, width) in pixels."""
    try:
        numbers = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or min(numbers) < 1:
        raise ArgumentTypeError(f"{text!r} is not a size; write 768 for a square or 240x320 (HxW)")
    return numbers[0], numbers[1]


def within(low: float, high: float) -> Callable[[str], float]:
    """An argparse type for a number in [low, high]."""

    def parse_number(text: str) -> float:
        """The number, if it lies within the limits."""
        try:
            number = float(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a number") from None
        if not low <= number <= high:
            raise ArgumentTypeError(f"{text} is outside {low:g}..{high:g}")
        return number

    return parse_number


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type for an integer of at least ``low``; accepts 30e3."""

    def parse_integer(text: str) -> int:
        """The whole number, if it is great enough."""
        try:
            number = float(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number != int(number) or number < low:
            raise ArgumentTypeError(f"{text} is not a whole number of at least {low}")
        return int(number)

    return parse_integer


def class_id(text: str) -> tuple[str, int]:
    """An argparse type: ``8`` or ``idd:8`` to (data set or empty, label id)."""
    dataset, _, number = text.rpartition(":")
    if not number.isdecimal() or int(number) > 255:
        raise ArgumentTypeError(f"{text!r} is no label id; write 8 or idd:8, with an id of 0..255")
    return dataset, int(number)


def ids(text: str) -> list[int]:
    """A type for argparse: ids with commas between them, such as 5,6,7."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ArgumentTypeError(f"{text!r} is no list of ids: write 5,6,7")
    return [int(part) for part in parts]


def expand_files(argv: Iterable[str], known: Path, folder: Path = Path()) -> list[str]:
    """Replace every ``@FILE`` by the file's flags, one a line, ``#`` starting a comment.

    Args:
        argv: arguments as typed.
        known: a folder of such files, whose nearest name an error gives.
        folder: what relative names start from; a file's own folder for names inside it.

    Raises:
        ValueError: if the file does not exist.
    """
    expanded: list[str] = []
    for argument in argv:
        if not argument.startswith("@"):
            expanded.append(argument)
            continue
        path = folder / argument[1:]
        if not path.is_file():
            names = sorted(entry.name for entry in known.glob("*.args"))
            near = difflib.get_close_matches(path.name, names, n=1) or names
            raise ValueError(f"{path} does not exist; {known.name}/ has {', '.join(near)}")
        for line in path.read_text().splitlines():
            expanded += expand_files(shlex.split(line, comments=True), known, path.parent)
    return expanded


def describe_unknown(argument: str, actions: Sequence[Action], arguments: Sequence[str]) -> str:
    """The message for an argument that no flag takes, with the nearest flag.

    Args:
        argument: the unknown one.
        actions: of the parser.
        arguments: all that were typed.
    """
    switches = {flag for action in actions if action.nargs == 0 for flag in action.option_strings}
    place = arguments.index(argument)
    if place and arguments[place - 1] in switches:
        return f"{arguments[place - 1]} takes no value, and {argument} follows it: leave that out"
    flags = [flag for action in actions for flag in action.option_strings]
    near = difflib.get_close_matches(argument.split("=")[0], flags, n=1)
    return f"unknown argument {argument}" + (f"; did you mean {near[0]}?" if near else "")


def missing_file(flag: str, path: Path) -> str:
    """The message for a file that is not there, with what its folder has."""
    folder = path.parent
    if not folder.is_dir():
        return f"--{flag} {path} does not exist; there is no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix == path.suffix)
    near = difflib.get_close_matches(path.name, names, n=3) or names[:5]
    return f"--{flag} {path} does not exist; {folder} has {', '.join(near) or 'no such file'}"
