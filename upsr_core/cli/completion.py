"""Completion of the command line by shells."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

SHELLS = ("bash", "zsh", "fish")
_FILES = {"inputs", "out", "paths", "config", "report", "report_file"}
_FOLDERS = {"model"}


class PrintCompletion(argparse.Action):
    """``--print-completion SHELL``: prints the shell's script and ends.

    Raises:
        ValueError: shtab, which writes it, is not installed.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        try:
            import shtab
        except ImportError as error:
            raise ValueError("--print-completion needs shtab; pip install shtab") from error
        for action in _actions(parser):
            if action.dest in _FILES | _FOLDERS:
                action.complete = shtab.FILE if action.dest in _FILES else shtab.DIRECTORY  # type: ignore[attr-defined]
        print(shtab.complete(parser, values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    actions: Sequence[argparse.Action] = parser._actions
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        yield action
