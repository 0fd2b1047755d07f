"""The Typer app: commands in help panels; every error a user can cause is one line and a code."""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from mltool import __version__
from mltool.errors import InputError, MltoolError, ResourceError, UsageError, escape
from mltool.options import SECTIONS, check_bounds
from mltool.signatures.distill import distill
from mltool.signatures.embed import embed
from mltool.signatures.evaluate import evaluate
from mltool.signatures.index import index
from mltool.signatures.info import info
from mltool.signatures.list import list_components
from mltool.signatures.pack import pack
from mltool.signatures.plot import plot
from mltool.signatures.positivity import positivity
from mltool.signatures.search import search
from mltool.signatures.train import train
from mltool.signatures.verify import verify

PANELS: dict[str, list[Callable]] = {
    "Learn": [train, distill],
    "Search": [embed, index, search, evaluate, positivity, plot],
    "Files": [info, verify, pack],
    "Help": [list_components],
}

EPILOG = """\b
Every command reads image lists, embeddings (.h5) and models (.safetensors) and writes one file,
whole or not at all. `mltool COMMAND --help` shows its options; each may also
stand in the environment (MLTOOL_TRAIN_LR=1e-4) or in a TOML file (--config).

\b
  mltool train digits:train --arch resnet10t --image-size 32 -o model.safetensors
  mltool embed model.safetensors digits:test -o test.h5
  mltool evaluate test.h5
"""


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
    """Help with the options in sections, because `train` has fifty."""

    def format_options(self, ctx, formatter) -> None:  # type: ignore[no-untyped-def]
        section_of = {name: title for title, names in SECTIONS.items() for name in names.split()}
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        rows |= {title: [] for title in SECTIONS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                rows[section_of.get(parameter.name, usual)].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


app = typer.Typer(
    name="mltool",
    cls=_Panels,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MLTOOL"},
)


def _print_version(value: bool) -> None:
    if value:
        print(f"mltool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, show_envvar=False, help="Print it."
        ),
    ] = False,
) -> None:
    """Deep metric learning and image retrieval as shell pipelines."""


def _read_config(ctx: typer.Context, path: str | None) -> str | None:
    """Make the values of a TOML file this command's defaults (below flags and environment)."""
    if path is None or ctx.resilient_parsing:
        return path
    import tomllib

    from mltool.components import suggest

    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _exit(UsageError(f"{path}: cannot be read as TOML ({error})")) from None
    command = ctx.info_name or ""
    known_commands = getattr(ctx.parent.command, "commands", {}) if ctx.parent else {}
    for key, value in table.items():
        if isinstance(value, dict) != (key in known_commands):
            hint = suggest(key, list(known_commands)) if isinstance(value, dict) else ""
            what = "a table of no command" if isinstance(value, dict) else "not a table"
            raise _exit(UsageError(f"{path}: {key!r} is {what}{hint}"))
    shared = {key: value for key, value in table.items() if not isinstance(value, dict)}
    given = shared | table.get(command, {})
    known = {parameter.name for parameter in ctx.command.params if parameter.name}
    values = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in known:
            hint = suggest(key, sorted(n.replace("_", "-") for n in known))
            raise _exit(UsageError(f"{path}: {command} has no option {key!r}{hint}"))
        values[name] = value
    ctx.default_map = values
    return path


_SHARED = {
    "quiet": Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")],
    "verbose": Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")],
    "config": Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE.toml",
            callback=_read_config,
            is_eager=True,
            help="Defaults for the options below flags and environment.",
        ),
    ],
}


def _command(function: Callable) -> Callable:
    """Add the options that every command has, and turn its errors into lines and exit codes."""

    @functools.wraps(function)
    def run(
        *args: object, quiet: bool, verbose: bool, config: str | None, **kwargs: object
    ) -> None:
        _set_up(quiet, verbose, kwargs.get("threads"))
        try:
            check_bounds(kwargs)
            function(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            _leave_closed_stdout()
        except MltoolError as error:
            raise _exit(error) from None
        except MemoryError:
            raise _exit(ResourceError("out of memory; try a smaller batch or block")) from None
        except OSError as error:
            raise _exit(_translated(error)) from None
        except RuntimeError as error:
            if "deterministic" in str(error):
                line = str(error).splitlines()[0]
                raise _exit(UsageError(f"{line} Leave out --deterministic.")) from None
            if not any(text in str(error) for text in ("out of memory", "allocate memory")):
                raise
            line = str(error).splitlines()[0]
            raise _exit(ResourceError(f"{line}; try a smaller --batch-size")) from None

    signature = inspect.signature(function)
    extra = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if name == "config" else False,
            annotation=kind,
        )
        for name, kind in _SHARED.items()
    ]
    parameters = [*signature.parameters.values(), *extra]
    for parameter in parameters:
        for kind in getattr(parameter.annotation, "__metadata__", ()):
            kind.show_envvar = False  # all have one; the epilog says it once
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
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


def _translated(error: OSError) -> MltoolError:
    where = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return InputError(f"{where}{reason}")
    return ResourceError(f"{where}{reason}")


def _exit(error: MltoolError) -> typer.Exit:
    print(f"mltool: {escape(str(error))}", file=sys.stderr)
    return typer.Exit(error.exit_code)


def _leave_closed_stdout() -> None:
    # Python flushes stdout once more at exit, which must not fail again
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(141)


for _panel, _functions in PANELS.items():
    for _function in _functions:
        _name = "list" if _function is list_components else _function.__name__.replace("_", "-")
        app.command(_name, cls=_Sections, rich_help_panel=_panel)(_command(_function))


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="mltool")
