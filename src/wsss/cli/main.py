"""`wsss`: the program. Errors are one message without traceback; `--debug` shows where they came from.

Exit status: 0 done, 1 a failure, 2 a mistake in the input, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

# two threads that wait actively for each other slow a small machine down; read when PyTorch loads
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from typer.core import TyperGroup

from wsss import __version__
from wsss.cli import (
    data,
    doctor,
    evaluate,
    export,
    label,
    models,
    papers,
    predict,
    questions,
    review,
    runs,
    saliency,
    show,
    submission,
)
from wsss.cli.display import console, error_console
from wsss.errors import WsssError

EVERYWHERE = ("--debug", "--offline")
"""Options that may stand before or after the command."""

_NO_SPACE = "Free some space, then run the same command again to continue. "
_NO_FOLDER = "Give a folder that is none of the files there. "
_NO_RIGHT = "Give a folder that this user may write to. "

ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_RIGHT),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _NO_FOLDER),
}
"""What to do about errors of the operating system."""

LONGEST_MESSAGE = 2_000
"""Letters; damaged inputs can hold names without end, and messages show them."""


class Program(TyperGroup):
    """Turns errors into one message and an exit status."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the program's own options to the front."""
        first = [word for word in args if word in EVERYWHERE]
        return super().parse_args(ctx, [*first, *(word for word in args if word not in EVERYWHERE)])

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            error_console.print("\nInterrupted. Run the same command again to continue.")
            raise SystemExit(130) from None
        except WsssError as error:
            _explain(ctx, str(error))
            raise SystemExit(error.exit_status) from None
        except (OSError, RuntimeError, MemoryError) as error:
            if type(error).__module__.startswith(("click", "typer")):
                raise
            advice = ADVICE.get(getattr(error, "errno", None) or 0, "")
            _explain(ctx, f"{type(error).__name__}: {error}. {advice}(`--debug` shows where.)")
            raise SystemExit(1) from None


def _explain(ctx: Any, message: str) -> None:
    if ctx.params.get("debug"):
        error_console.print_exception()
    error_console.print(f"[bold red]Error:[/] {_plain(_shortened(message))}", highlight=False, soft_wrap=True)


def _shortened(message: str) -> str:
    """A message without the middle of whatever it shows, should that be endless."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[: LONGEST_MESSAGE - 500]} … {message[-500:]}"


def _plain(message: str) -> str:
    return message.replace("[", r"\[")


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Weakly supervised semantic segmentation: image tags in, masks and a segmentation model out.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def program(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Refuse any network access.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    if offline:
        from wsss.models.weights import set_offline

        set_offline(True)


for commands in (
    doctor,
    label,
    runs,
    review,
    evaluate,
    papers,
    show,
    data,
    models,
    questions,
    saliency,
    submission,
    predict,
    export,
):
    commands.add_to(app)


def run() -> None:
    """The console script."""
    app(prog_name="wsss")


if __name__ == "__main__":
    sys.exit(app(prog_name="wsss"))
