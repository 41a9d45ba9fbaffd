"""How a command ends: what goes wrong is one line and an exit code, and nothing is waited for."""

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from jaxood.errors import UsageError
from jaxood.files import printable


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """SIGTERM ends a command as SIGINT does, cleaning up; a second signal ends it at once.

    Yields what came. Signals that are ignored, as `nohup` has it, stay so.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outcome(error: BaseException, received: list[int]) -> tuple[int, str] | None:
    """The exit code that belongs to an error, and the line; None for a fault of the program.

    Args:
      received: the signals that came; whatever was raised then is their doing.
    """
    if received or isinstance(error, KeyboardInterrupt):
        return 128 + (received or [signal.SIGINT])[0], "interrupted"
    if isinstance(error, UsageError):
        return 2, printable(str(error))
    if isinstance(error, BrokenPipeError):  # `jaxood detect ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, ""
    if isinstance(error, OSError):
        file = f": {error.filename}" if error.filename else ""
        return 1, printable(f"{error.strerror or error}{file}")
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in first:
        told = f" ({first})" if first else ""
        return 1, f"not enough memory{told}; a smaller --batch-size needs less"
    return None


def end_with(run: Callable[[], int], prog: str) -> NoReturn:
    """Ends the process with the exit code that `run` returns.

    At once: threads that still read images are not waited for, nor do they crash an interpreter
    that is going down.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name
    code = 1
    try:
        code = run()
        sys.stdout.flush()
    except SystemExit as done:  # --help
        code = int(done.code or 0)
        sys.stdout.flush()
    except OSError as error:  # of the output
        told = outcome(error, [])
        if told is not None:
            code, line = told
            print(f"{prog}: {line}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    os._exit(code)
