"""How commands are registered: what all of them keep to, whatever they do."""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import os
import sys
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer import rich_utils
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo

from fsdcore.client.config import FILE_VARIABLE
from fsdcore.contracts.settings import RunSettings, choices, kinds, parts
from fsdcore.errors import InputError
from fsdcore.files import same_file

_Function = TypeVar("_Function", bound=Callable[..., None])

# What these options name is written; every other path is read.
_WRITTEN = ("output", "categories", "record")
# What may be a name or a file, which then ends so.
_SETTINGS = ".toml"
_USAGE = 2
# Settings of a run that no forecast looks at.
NOT_FORECAST = ("kernel", "threads", "deadline_seconds", "run_seconds", "trace")


def group(text: str, kind: type[TyperGroup] | None = None, **options: Any) -> typer.Typer:
    """A group of commands, which shows its help if none is named."""
    return typer.Typer(cls=kind or Group, help=text, **options)


def register(app: typer.Typer, name: str) -> Callable[[_Function], _Function]:
    """Make the function a command of `app`. A call that would write over what it reads is refused."""

    def registered(function: _Function) -> _Function:
        app.command(name, cls=_Command)(_apart(function))
        return function

    return registered


# Settings of a run -----------------------------------------------------------------------------------------


def run_options(*names: str, but: Container[str] = ()) -> Callable[[_Function], _Function]:
    """Give a command the settings of a run as options: those of `names`, or all if there are none, `but` some.

    The command takes them as its last parameter, ``**run``: what was given, None for what was left out.
    """
    wanted = [key for key in kinds(RunSettings) if key in (names or kinds(RunSettings)) and key not in but]

    def with_options(function: _Function) -> _Function:
        signature = inspect.signature(function, eval_str=True)
        *own, _ = signature.parameters.values()
        # It is the signature that typer makes options of.
        function.__signature__ = signature.replace(parameters=[*own, *map(_option, wanted)])  # type: ignore[attr-defined]
        return function

    return with_options


def _option(key: str) -> inspect.Parameter:
    bare, about = parts(kinds(RunSettings)[key])
    listed, told = choices(bare), about.description or ""
    option = typer.Option(
        *([f"--{key}/--no-{key}"] if bare is bool else ()),
        metavar="|".join(listed) or None,
        help=f"{told[:1].upper()}{told[1:]}. Default: {getattr(RunSettings(), key)}",
        rich_help_panel="Settings of the run",
    )
    kind: Any = str if listed else bare
    return inspect.Parameter(
        key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


# Files -----------------------------------------------------------------------------------------------------


def check_apart(read: Mapping[str, Path], written: Mapping[str, Path]) -> None:
    """`InputError` if a file that is written is one that is read, or written twice, whatever names they go by.

    Both have the paths by what a user knows them as.
    """
    for (name, path), (other, source) in itertools.product(written.items(), read.items()):
        if same_file(path, source):
            raise InputError(f"{path}: {name} would write over {other}; give {name} another file")
    for (name, path), (other, second) in itertools.combinations(written.items(), 2):
        if same_file(path, second):
            raise InputError(f"{path}: {name} and {other} must be different files")


def _apart(function: _Function) -> _Function:
    roles = dict(_roles(function))

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> None:
        given = inspect.signature(function).bind(*arguments, **named).arguments
        paths = {name: path for name, value in given.items() if name in roles and (path := _path(value)) is not None}
        read = {roles[name][0]: path for name, path in paths.items() if not roles[name][1]}
        if os.environ.get(FILE_VARIABLE):
            read.setdefault(FILE_VARIABLE, Path(os.environ[FILE_VARIABLE]))
        check_apart(read, {roles[name][0]: path for name, path in paths.items() if roles[name][1]})
        function(*arguments, **named)

    return typing.cast(_Function, checked)


def _roles(function: Callable[..., None]) -> Iterable[tuple[str, tuple[str, bool]]]:
    """For each parameter that may name a file: what a user knows it as, and whether it is written."""
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        kind, *extras = typing.get_args(hint) or (hint,)
        info = next((each for each in extras if isinstance(each, (ArgumentInfo, OptionInfo))), None)
        if info is None or not {Path, str} & {kind, *typing.get_args(kind)}:
            continue
        if isinstance(info, ArgumentInfo):
            yield name, (info.metavar or name.upper(), False)
        else:
            long = [each for each in info.param_decls or () if each.startswith("--")]
            yield name, (long[0] if long else f"--{name.replace('_', '-')}", name in _WRITTEN)


def _path(value: object) -> Path | None:
    """The file that an argument names, if it names one."""
    if isinstance(value, str):
        return Path(value) if value.endswith(_SETTINGS) else None
    return value if isinstance(value, Path) else None


# Usage -----------------------------------------------------------------------------------------------------


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _look_at_stdout()
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """Commands by name; the nearest is told where there is none of that name."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _look_at_stdout()
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            ctx.exit(_USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            near = _near(args[0], self.commands, ctx)
            raise InputError(f"there is no command {args[0]!r}; {near}")
        return super().resolve_command(ctx, args)


def _look_at_stdout() -> None:
    """No variable makes a terminal of a pipe, as FORCE_COLOR would for the writer of help."""
    if not sys.stdout.isatty():
        rich_utils.FORCE_TERMINAL = False


def _plain(parameters: list[Any]) -> list[Any]:
    """A flag has no value to show."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


def _near(word: str, known: Iterable[str], ctx: Any) -> str:
    """What of `known` was meant, or where all of it is told."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {found[0]!r}?" if found else f"see: {ctx.command_path} --help"


def usage_error() -> type[Exception]:
    """What is raised for a command line that cannot be read; newer releases of typer bring a click of their own."""
    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def usage_line(error: Any) -> str:
    """What is wrong with the command line, and which option is near it, or where its help is."""
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and context is not None:
        known = [each for parameter in context.command.get_params(context) for each in parameter.opts]
        return f"there is no option {option!r}; {_near(str(option), known, context)}"
    text = error.format_message().strip().rstrip(".")
    text = text[:1].lower() + text[1:]
    return text if context is None else f"{text}; see: {context.command_path} --help"
