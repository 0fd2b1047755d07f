"""What surrounds a command: its options from groups, help in sections, and errors as one line.

    app = shell.application()

    @shell.command(app, "Files")
    def pack(data: Data, output: Output, lists: ListOptions) -> None:

The shell sees `mltool pack DATA... -o FILE [--split S] ...`: one option for every field of a group.
"""

import dataclasses
import functools
import inspect
import logging
import os
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from mltool.errors import (
    InputError,
    MltoolError,
    ResourceError,
    UsageError,
    escape,
)
from mltool.options.defaults import FileDefaults, Values, read_config, read_preset

Command = Callable[..., None]


class _Line(logging.Formatter):
    """`warning: ...` for warnings, the bare sentence for information."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        return prefix + escape(record.getMessage())


class _Panels(TyperGroup):
    """Lists the commands by what they are for, without importing rich."""

    def format_commands(self, ctx, formatter) -> None:  # type: ignore[no-untyped-def]
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((name, command.get_short_help_str(80)))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


class _Sections(TyperCommand):
    """A command with defaults from files, and with help in sections, because `train` has sixty."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        if ctx.resilient_parsing:  # a shell that completes a word
            return super().parse_args(ctx, args)
        said, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        try:
            files = [] if said.get("help") else self._read_files(ctx, said)
            rest = super().parse_args(ctx, args)
            for file in files:
                ctx.params |= file.complete(ctx.params)
        except UsageError as error:
            raise _exit(error) from None
        return rest

    def _read_files(self, ctx, said) -> list[FileDefaults]:  # type: ignore[no-untyped-def]
        """Set the defaults of this call from its files; return these, the strongest first."""
        parameters = {each.name: each for each in self.get_params(ctx)}

        def ask(name: str):  # type: ignore[no-untyped-def]
            return parameters[name].consume_value(ctx, said)[0]  # flag, environment, files, default

        commands = ctx.parent.command.commands if ctx.parent else {}
        names = str(self.name), list(commands), [name for name in parameters if name != "help"]
        files = []
        if (path := ask("config")) is not None:
            files.append(read_config(path, *names))
            ctx.default_map = files[0].values
        if "preset" in parameters:
            files.append(read_preset(ask("preset"), *names))
        ctx.default_map = _overlay([file.values for file in files])
        stated = {option: ask(option) for file in files for option in file.cases}
        ctx.default_map = _overlay([file.choose(stated) for file in files])
        return files

    def format_options(self, ctx, formatter) -> None:  # type: ignore[no-untyped-def]
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            section = getattr(parameter, "rich_help_panel", None) or usual
            rows.setdefault(RUN if parameter.name == "help" else section, []).append(record)
        rows[RUN] = rows.pop(RUN, [])  # the last
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


RUN = "Run"


def _overlay(layers: Sequence[Values]) -> Values:
    """Return the values of all layers, those of the first before those of the others."""
    return {key: value for layer in reversed(layers) for key, value in layer.items()}


def application(name: str, help_text: str, epilog: str, version: str) -> typer.Typer:
    """Return an empty Typer app that lists its commands in panels."""
    app = typer.Typer(
        name=name,
        cls=_Panels,
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=epilog,
        add_completion=True,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "auto_envvar_prefix": name.upper(),
        },
    )

    def print_version(value: bool) -> None:
        if value:
            print(f"{name} {version}")
            raise typer.Exit

    @app.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option(
                "--version",
                callback=print_version,
                is_eager=True,
                show_envvar=False,
                help="Print it.",
            ),
        ] = False,
    ) -> None: ...

    return app


def command(app: typer.Typer, panel: str, name: str = "") -> Callable[[Command], Command]:
    """Return a decorator that makes a function a command of `app`, listed in a panel.

    The function comes back with its groups spread, to be called from Python with options as in the
    shell: `train(["digits:train"], "m.safetensors", epochs=3)`.
    """

    def register(function: Command) -> Command:
        spread = spread_groups(function)
        register_as = app.command(name or function.__name__, cls=_Sections, rich_help_panel=panel)
        register_as(_surround(spread))
        return spread

    return register


def spread_groups(function: Command) -> Command:
    """Return `function` with one keyword for every field of its parameters that are groups."""
    hints = typing.get_type_hints(function, include_extras=True)
    groups: dict[str, type] = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
    parameters, keywords = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        options = typing.get_type_hints(groups[name], include_extras=True)
        for field in dataclasses.fields(groups[name]):
            missing = field.default is dataclasses.MISSING
            keywords.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if missing else field.default,
                    annotation=options[field.name],
                )
            )

    @functools.wraps(function)
    def call(*args: object, **values: object) -> None:
        made = {
            name: kind(
                **{f.name: values.pop(f.name) for f in dataclasses.fields(kind) if f.name in values}
            )
            for name, kind in groups.items()
        }
        function(*args, **values, **made)

    call.groups = tuple(groups.values())  # type: ignore[attr-defined]
    _describe(call, [*parameters, *keywords])
    return call


def groups_of(app: typer.Typer) -> dict[str, tuple[type, ...]]:
    """Return the groups of options of each command of `app`."""
    return {
        str(command.name): command.callback.groups  # type: ignore[union-attr]
        for command in app.registered_commands
    }


def _describe(function: Command, parameters: list[inspect.Parameter]) -> None:
    """Make typer see these parameters of a function."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}


def _make_shared(name: str, default: object, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


_option = functools.partial(typer.Option, rich_help_panel=RUN)
_SHARED = [
    _make_shared(
        "quiet", False, Annotated[bool, _option("-q", "--quiet", help="Only warnings and errors.")]
    ),
    _make_shared("verbose", False, Annotated[bool, _option("-v", "--verbose", help="Say more.")]),
    _make_shared(
        "config",
        None,
        Annotated[
            str | None,
            _option(
                "--config",
                metavar="FILE.toml",
                help="Defaults for the options below flags and environment.",
            ),
        ],
    ),
]


def _surround(function: Command) -> Command:
    """Return a command with the options that all have, whose errors are lines and exit codes."""

    @functools.wraps(function)
    def run(
        *args: object, quiet: bool, verbose: bool, config: str | None, **options: object
    ) -> None:
        _set_up(quiet, verbose, options.get("threads"))
        try:
            function(*args, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            _leave_closed_stdout()
        except (MltoolError, MemoryError, OSError, RuntimeError) as error:
            shown = _translate(error)
            if shown is None:
                raise
            raise _exit(shown) from None

    parameters = [*inspect.signature(function).parameters.values(), *_SHARED]
    for parameter in parameters:
        for mark in getattr(parameter.annotation, "__metadata__", ()):
            if hasattr(mark, "show_envvar"):
                mark.show_envvar = False  # all have one; the epilog says it once
    _describe(run, parameters)
    return run


def _set_up(quiet: bool, verbose: bool, threads: object) -> None:
    if threads:
        # numpy, faiss and torch read this when they are imported, which is later
        os.environ["OMP_NUM_THREADS"] = str(threads)
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    logger = logging.getLogger("mltool")
    logger.handlers[:] = [handler]
    logger.propagate = False
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0:
        level = logging.ERROR  # rank 0 speaks for all
    logger.setLevel(level)


def _translate(error: Exception) -> MltoolError | None:
    """Return an error as one that a user can read, None for a bug."""
    if isinstance(error, MltoolError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError("out of memory; try a smaller batch or block")
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            return InputError(f"{path}{reason}")
        return ResourceError(f"{path}{reason}")
    line = (str(error).splitlines() or [""])[0]
    if "deterministic" in str(error):
        return UsageError(f"{line} Leave out --deterministic.")
    if any(text in str(error) for text in ("out of memory", "allocate memory")):
        return ResourceError(f"{line}; try a smaller --batch-size")
    return None


def _exit(error: MltoolError) -> typer.Exit:
    print(f"mltool: {escape(str(error))}", file=sys.stderr)
    return typer.Exit(error.exit_code)


def _leave_closed_stdout() -> None:
    # Python flushes stdout once more at exit, which must not fail again
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(141)
