"""What stands behind a command's name: options of several values, mappings, and URLs whose password nobody may see."""

from __future__ import annotations

import os
from typing import Any

from playbook.errors import UsageError
from playbook.settings import Settings
from playbook.target.url import holds_secret

_URL_VARIABLE = "PLAYBOOK_TARGET_URL"


def settings(target: str | None, *, map: list[str] | None = None, **given: Any) -> Settings:
    """A URL with a password is handed on through the environment, so that no file, log or process list shows it."""
    if not target and holds_secret(default := os.environ.get("PLAYBOOK_TARGET", "")):
        os.environ[_URL_VARIABLE] = default
        os.environ.pop("PLAYBOOK_TARGET", None)
        target = f"env:{_URL_VARIABLE}"
    return Settings.from_environ(os.environ, target=target, map=_mapping(map), **given)


def without_secrets(arguments: list[str]) -> list[str]:
    """URLs with a password, wherever they stand, become names of a variable: messages about arguments quote them."""
    kept = []
    for argument in arguments:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        if holds_secret(value):
            os.environ[_URL_VARIABLE] = value
            value = f"env:{_URL_VARIABLE}"
        kept.append(f"{option}{equals}{value}")
    return kept


def _mapping(pairs: list[str] | None) -> dict[str, str] | None:
    """What `--map` was given, by the plan's names; None where it was not.

    Raises:
        UsageError: one is no pair.
    """
    if not pairs:
        return None
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, _, other) in zip(pairs, split, strict=True) if not (name and other)]:
        raise UsageError(f"--map {wrong[0]}: write PLAN_NAME=TARGET_NAME")
    return {name: other for name, _, other in split}


def spread(arguments: list[str]) -> list[str]:
    """`--only 1.1 3.2` as click wants it: `--only 1.1 --only 3.2`; likewise --map and --api-path."""
    spread: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in {"--only", "--map", "--api-path"} else ""
        elif option and spread[-1] != option:
            spread.append(option)
        spread.append(argument)
    return spread
