"""``gnomon <command> [hydra overrides]``: finds the command, composes its config, shows its errors.

A command is one module in ``commands/``: its docstring is its help, ``CONFIG`` names its primary
config, ``run(config, options)`` does the work and returns the exit code. A package in ``commands/`` is
a group of such modules, called by two words (``gnomon predictor train``); one that has a ``run`` itself
is a command as well (``gnomon measure``). One with ``TAKES_TEXTS = True`` takes texts beside overrides; one with
``PLANS = True`` knows what ``--plan`` asks for.
Nothing heavy is imported before a command runs, so that ``--help`` is instant.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from .errors import ConfigError, GnomonError

FLAGS = {"--help": "this text", "--json": "print the result as JSON", "--plan": "say what it would cost, and stop"}

ON_STANDARD_INPUT = "A text that looks like key=value or begins with -- can come on standard input."

OVERRIDE = re.compile(r"[~+]{0,2}[A-Za-z_][\w./@-]*=|~[A-Za-z_]")
"""How an override begins: a key without spaces."""


@dataclass(frozen=True)
class Options:
    """The few flags; everything else is an override."""

    json: bool = False
    plan: bool = False
    config_dirs: tuple[str, ...] = ()
    overrides: tuple[str, ...] = field(default=())
    texts: tuple[str, ...] = ()
    """Of a command that takes texts: its arguments that are no overrides."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        return _dispatch(words)
    except GnomonError as error:
        if as_json:
            print(json.dumps({"error": str(error), "kind": type(error).__name__}))
        else:
            print(f"gnomon: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ngnomon: stopped. Nothing finished is lost; the same command goes on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        from . import __version__

        print(f"gnomon {__version__}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    name, *rest = words
    command = load_command(name)
    if is_group(command) and ((rest[:1] and rest[0] in command_names(name)) or not hasattr(command, "run")):
        if not rest or rest[0] in ("--help", "-h", "help"):
            print(group_help(name, command))
            return 0
        sub, *rest = rest
        name, command = f"{name} {sub}", load_command(sub, name)
    if "--help" in rest or "-h" in rest:
        print(command_help(name, command, [word for word in rest if not word.startswith("-")]))
        return 0
    takes_texts = getattr(command, "TAKES_TEXTS", False)
    plans = getattr(command, "PLANS", False)
    options = parse(rest, takes_texts=takes_texts, plans=plans)
    if options.plan and not plans:
        allowed = f"with {', '.join(planned())}"
        raise ConfigError("this command has none", field="flag", value="--plan", allowed=allowed)
    from .conf.compose import compose

    try:
        config = compose(command.CONFIG, options.overrides, options.config_dirs)
    except ConfigError as error:
        if not takes_texts:
            raise
        raise ConfigError(str(error).rstrip("."), hint=ON_STANDARD_INPUT) from error
    return int(command.run(config, options))


def parse(words: Sequence[str], *, takes_texts: bool = False, plans: bool = True) -> Options:
    """Splits flags from overrides, and both from texts.

    Args:
        words: Of the command line, after the command.
        takes_texts: Whether what looks like neither is a text, instead of a mistake.
        plans: Whether the command knows what ``--plan`` asks for: otherwise no message names it.

    Raises:
        ConfigError: For an unknown flag, or a word that is no override.
    """
    config_dirs: list[str] = []
    overrides: list[str] = []
    texts: list[str] = []
    flags: set[str] = set()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--config-dir":
            if not rest:
                raise ConfigError("needs a folder", field="--config-dir", value=None)
            config_dirs.append(rest.pop(0))
        elif word.startswith("--config-dir="):
            config_dirs.append(word.split("=", 1)[1])
        elif word in FLAGS:
            flags.add(word)
        elif takes_texts and not word.startswith("--") and not OVERRIDE.match(word):
            texts.append(word)
        elif word.startswith("-") and "=" not in word:
            hint = ON_STANDARD_INPUT if takes_texts else None
            allowed = [flag for flag in (*FLAGS, "--config-dir") if plans or flag != "--plan"]
            raise ConfigError("unknown flag", field="flag", value=word, allowed=allowed, hint=hint)
        elif "=" not in word and not word.startswith("~"):
            raise ConfigError("not an override", field="argument", value=word, allowed="key=value, like study.seed=1")
        else:
            overrides.append(word)
    return Options("--json" in flags, "--plan" in flags, tuple(config_dirs), tuple(overrides), tuple(texts))


def command_names(group: str = "") -> dict[str, str]:
    """Commands, or those of a group, and their module names: a trailing underscore avoids Python's
    keywords."""
    folder = str(Path(__file__).parent / "commands" / group)
    modules = sorted(module.name for module in pkgutil.iter_modules([folder]) if not module.name.startswith("_"))
    return {name.rstrip("_"): name for name in modules}


def load_command(name: str, group: str = "") -> ModuleType:
    """The module of a command, or of one in a group.

    Raises:
        ConfigError: With the commands that exist.
    """
    names = command_names(group)
    if name not in names:
        raise ConfigError("unknown command", field=group or "command", value=name, allowed=names)
    path = f".commands.{group}.{names[name]}" if group else f".commands.{names[name]}"
    return importlib.import_module(path, __package__)


def planned() -> list[str]:
    """Commands that know what ``--plan`` asks for."""
    found = []
    for name in command_names():
        command = load_command(name)
        subs = command_names(name) if is_group(command) else ()
        found += [name] if hasattr(command, "PLANS") else []
        found += [f"{name} {sub}" for sub in subs if hasattr(load_command(sub, name), "PLANS")]
    return found


def is_group(command: ModuleType) -> bool:
    """Whether a command holds others."""
    return hasattr(command, "__path__")


def overview() -> str:
    """The text of ``gnomon --help``."""
    from .conf.compose import groups

    lines = ["usage: gnomon <command> [key=value ...] [--help] [--json] [--plan] [--config-dir DIR]", "", "commands:"]
    for name in command_names():
        command = load_command(name)
        words = f" ({', '.join(command_names(name))})" if is_group(command) else ""
        lines.append(f"  {name:10s} {_summary(command)}{words}")
    lines += ["", "config groups (group=option; `gnomon search --help` shows the keys):"]
    lines += [f"  {group:10s} {', '.join(options)}" for group, options in groups().items()]
    lines += ["", "examples:", "  gnomon search", "  gnomon search experiment=quick --plan"]
    lines += ["  gnomon search device=torch_cpu objective.latency=50% study.evaluations=60", "  gnomon status"]
    return "\n".join(lines)


def group_help(name: str, group: ModuleType) -> str:
    """The text of ``gnomon <group> --help``."""
    lines = [f"usage: gnomon {name} <command> [key=value ...] [--help]", "", (group.__doc__ or "").strip(), ""]
    lines += ["commands:", *(f"  {sub:10s} {_summary(load_command(sub, name))}" for sub in command_names(name))]
    return "\n".join([*lines, "", f"`gnomon {name} <command> --help` shows the keys of one."])


def _summary(command: ModuleType) -> str:
    return (command.__doc__ or "").strip().splitlines()[0].rstrip(".")


def command_help(name: str, command: ModuleType, overrides: Sequence[str] = ()) -> str:
    """The text of ``gnomon <command> --help``: what it does, its keys with comments, its groups."""
    from .conf.compose import config_text

    return f"{(command.__doc__ or '').strip()}\n\n{config_text(command.CONFIG, overrides)}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
