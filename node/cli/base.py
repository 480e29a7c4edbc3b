"""What all commands share: output, errors, exit codes, options and finding a node.

Data goes to stdout, everything else to stderr, also with `--output json`, where an error is one
JSON object on stderr. Imports are light on purpose: `hypermesh --help` loads no more than this.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, overload

import typer
from typer.core import TyperGroup

from node.errors import (
    EXIT_CODE_MEANING,
    ExitCode,
    InputMissing,
    InvalidArgument,
    NodeError,
    NodeNotFound,
)

if TYPE_CHECKING:
    from node.client import NodeClient


class OutputFormat(StrEnum):
    """Form of what goes to stdout."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[
    OutputFormat, typer.Option("--output", "-o", help="Form of the result on stdout.")
]
NodeURL = Annotated[
    str | None,
    typer.Option("--node", metavar="URL", help="HTTP address of the node. Also $HYPERMESH_NODE."),
]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="A local cluster; its first node that answers."),
]
HomeFolder = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Home folder of the node. Also $HYPERMESH_HOME."),
]
PassphraseFile = Annotated[
    str | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Read the passphrase from a file of mode 0600, or from stdin with '-'.",
    ),
]
Timeout = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="Give up after this time, such as 60s.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

# Errors of other rooms, by code, that end differently from a plain failure.
EXIT_CODE_OF: Final = {
    "HM-B-002": ExitCode.CONFIGURATION,
    "HM-B-003": ExitCode.UNSAFE,
    "HM-B-004": ExitCode.CONFIGURATION,
    "HM-B-021": ExitCode.CONFIGURATION,
    "HM-B-022": ExitCode.UNSAFE,
    "HM-A-002": ExitCode.USAGE,
    "HM-L-301": ExitCode.USAGE,
    "HM-T-001": ExitCode.USAGE,
    "HM-T-006": ExitCode.NOT_REACHABLE,
    "HM-N-010": ExitCode.CONFIGURATION,
    "HM-N-011": ExitCode.UNSAFE,
    "HM-N-012": ExitCode.NOT_ALLOWED,
}


class Group(TyperGroup):
    """Commands below one word. Without a verb it is wrong use: the help goes to stderr."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the noun."""
        if args:
            return super().parse_args(ctx, args)
        with contextlib.redirect_stdout(sys.stderr):
            return super().parse_args(ctx, args)


def noun(text: str) -> typer.Typer:
    """Make the group of one noun."""
    return typer.Typer(cls=Group, help=text, no_args_is_help=True, rich_markup_mode="rich")


def examples(*lines: str) -> str:
    """Build the end of a command's help: examples and exit codes."""
    codes = "\n".join(f"  {code.value:>3}  {text}" for code, text in EXIT_CODE_MEANING.items())
    shown = "\n".join(f"  $ {line}".replace("[", r"\[") for line in lines)
    return f"[bold]Examples[/bold]\n{shown}\n\n[bold]Exit codes[/bold]\n{codes}"


def emit(output: OutputFormat, data: object, text: str | Callable[[], str]) -> None:
    """Write the result of a command to stdout in the form that was asked for."""
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    shown = text if isinstance(text, str) else text()
    if shown:
        typer.echo(shown)


def note(text: str) -> None:
    """Tell a person something that is not the result."""
    typer.echo(text, err=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under left-aligned titles, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    right = [
        bool(rows)
        and all(
            row[at].replace(",", "").replace(".", "").lstrip("-").isdigit() or row[at] in ("", "-")
            for row in rows
        )
        for at in range(len(columns))
    ]
    lines = []
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


@overload
def require_input(path: Path) -> Path: ...
@overload
def require_input(path: None) -> None: ...
def require_input(path: Path | None) -> Path | None:
    """Return a file that the command line names; raise `InputMissing` when it is not there.

    The one rule for all commands. A file that a home must hold is another matter: exit code 3.
    """
    if path is None or path.is_file():
        return path
    what = "is a folder" if path.is_dir() else "no such file"
    raise InputMissing(f"{path}: {what}", hint="check the path that was given")


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something dangerous; raise unless the answer is yes."""
    from node.errors import NotConfirmed

    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(
            "this needs a confirmation and nobody can be asked", hint="add --yes to the command"
        )
    if not typer.confirm(question, err=True):
        raise NotConfirmed("stopped, nothing was changed", hint="add --yes to skip the question")


def passphrase(file: str | None, *, prompt: str, new: bool = False) -> str:
    """Read a passphrase from a file, from stdin, or from the person at the terminal."""
    from node.errors import PassphraseMissing
    from node.home import require_private
    from node.inputs import input_text
    from node.limits import SECRET_FILE_SIZE_BYTES_MAX

    if file is None:
        if not sys.stdin.isatty():
            raise PassphraseMissing(
                "a passphrase is needed and nobody can be asked",
                hint="use --passphrase-file FILE, or '-' to read it from stdin",
            )
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=new, err=True))
    if file == "-":
        text = _line_of_stdin(SECRET_FILE_SIZE_BYTES_MAX)
    else:
        path = Path(file)
        if not path.is_file():
            raise PassphraseMissing(
                f"{path}: no such file", hint="write the passphrase into a file of mode 0600"
            )
        require_private(path)
        text = input_text(
            path,
            size_max=SECRET_FILE_SIZE_BYTES_MAX,
            what="a passphrase",
            hint="write the passphrase into the first line of a text file of mode 0600",
        )
    text = text.splitlines()[0] if text else ""
    if not text:
        raise PassphraseMissing(
            "the passphrase is empty", hint="put it into the first line of the file"
        )
    return text


def _line_of_stdin(size_max: int) -> str:
    data = sys.stdin.buffer.readline(size_max + 1)  # its text would take any byte in some locales
    hint = "write the passphrase as one line of text"
    if len(data) > size_max:
        raise InvalidArgument(f"a line of stdin is longer than {size_max:,} bytes", hint=hint)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("what stdin gives is not text in UTF-8", hint=hint) from None


def seconds(text: str) -> float:
    """Read a time such as 500ms, 60s, 2m or 1h."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if (
            text.endswith(unit)
            and (number := text.removesuffix(unit)).replace(".", "", 1).isdigit()
        ):
            return float(number) * factor
    raise InvalidArgument(f"{text!r} is not a time", hint="write 500ms, 60s, 2m or 1h")


# --- finding a node ---


def candidate_urls(node: str | None, cluster: str | None, home: Path | None) -> list[str]:
    """List where the node may be: --node, $HYPERMESH_NODE, --cluster, the home, the default."""
    from node.client import DEFAULT_URL

    if chosen := node or (None if cluster or home else os.environ.get("HYPERMESH_NODE")):
        if not chosen.startswith(("http://", "https://")):
            raise NodeNotFound(
                f"{chosen!r} is not an HTTP address", hint="write it like http://[::1]:9293"
            )
        return [chosen]
    if cluster:
        from node.cluster.manifest import find_cluster

        return [member.url for member in find_cluster(cluster).members]
    from node.home import Home, default_home

    folder = Home(home or default_home())
    if folder.api_file.is_file():
        from node.inputs import parse_json

        try:
            return [str(parse_json(folder.api_file.read_bytes())["url"])]
        except (ValueError, KeyError, TypeError):
            pass
    if home is not None:
        folder.require_folder()
        from node.config import load_config

        listen = load_config(folder.config).config.http.listen
        return [f"http://{listen.replace('[::]', '[::1]')}"]
    return [DEFAULT_URL]


def connect(node: str | None, cluster: str | None, home: Path | None) -> NodeClient:
    """Return a client of the first candidate that answers, or of the first one."""
    from node.client import NodeClient
    from node.errors import NotReachable

    urls = candidate_urls(node, cluster, home)
    for url in urls[:-1]:
        client = NodeClient(url)
        try:
            client.readiness()
        except (NotReachable, NodeError):
            client.close()
            continue
        return client
    return NodeClient(urls[-1])


# --- the root command ---


class Root(Group):
    """The command as a whole: turns every error into one form and an exit code."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run and exit; never returns."""
        words = options.get("args") or (args[0] if args else None)
        words = sys.argv[1:] if words is None else list(words)
        options["standalone_mode"] = False
        sys.exit(_run(lambda: super(Root, self).main(*args, **options), _json_wanted(words)))


def _run(call: Callable[[], Any], as_json: bool) -> int:
    from typer import Abort, Exit
    from typer._click.exceptions import ClickException

    try:
        result = call()
    except Exit as error:
        return error.exit_code
    except (Abort, KeyboardInterrupt):
        return _report(as_json, "HM-D-000", "interrupted", "", ExitCode.INTERRUPTED)
    except ClickException as error:
        return _usage_error(error, as_json)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until exit
        return ExitCode.OK
    except Exception as error:
        return _failure(error, as_json)
    return result if isinstance(result, int) else ExitCode.OK


def _usage_error(error: Any, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    where = context.command_path if context else "hypermesh"
    return _report(
        as_json,
        InvalidArgument.code,
        error.format_message().rstrip("."),
        f"see `{where} --help`",
        ExitCode.USAGE,
    )


def _failure(error: Exception, as_json: bool) -> int:
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    code, hint = getattr(found, "code", None), getattr(found, "hint", None)
    if isinstance(found, OSError) and code is None:
        name = f"{found.filename}: " if found.filename else ""
        message = f"{name}{found.strerror or found}"
        return _report(as_json, "HM-D-003", message, "check the path and its permissions", 1)
    # A room's code 000 is that of its root class: something inside that nobody put into words.
    if not (isinstance(code, str) and code.startswith("HM-")) or code.endswith("-000"):
        import traceback

        traceback.print_exception(found, file=sys.stderr)
        text = f"{type(found).__name__}: {found}"
        hint = "this is a defect; please report it with the lines above"
        return _report(as_json, "HM-D-001", text, hint, ExitCode.FAILED)
    remote = getattr(found, "remote_code", "") or getattr(found, "stable_code", "")
    exit_code = getattr(found, "exit_code", EXIT_CODE_OF.get(code, ExitCode.FAILED))
    problems = [vars_of(problem) for problem in getattr(found, "problems", ())]
    return _report(as_json, remote or code, str(found), str(hint or ""), exit_code, problems)


def vars_of(value: object) -> dict[str, Any]:
    """Return the fields of a frozen dataclass."""
    from dataclasses import asdict

    return asdict(value)  # type: ignore[call-overload, no-any-return]


def _report(
    as_json: bool,
    code: str,
    message: str,
    hint: str,
    exit_code: int,
    problems: Sequence[dict[str, Any]] = (),
) -> int:
    if as_json:
        error: dict[str, Any] = {
            "code": code,
            "message": message,
            "next_step": hint,
            "exit_code": int(exit_code),
        }
        if problems:
            error["problems"] = list(problems)
        typer.echo(json.dumps({"error": error}, ensure_ascii=False), err=True)
    elif "\n" in message:
        typer.echo(f"{message}\n\n{_sentence(hint)}   [{code}]", err=True)
    else:
        typer.echo(f"error: {message}   [{code}]", err=True)
        if hint:
            typer.echo(f"  next: {hint}", err=True)
    return int(exit_code)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _json_wanted(words: Sequence[str]) -> bool:
    """Find --output json in a command line that may not even parse."""
    for at, word in enumerate(words):
        if word in ("--output=json", "-ojson"):
            return True
        if word in ("--output", "-o") and at + 1 < len(words):
            return words[at + 1] == "json"
    return False
