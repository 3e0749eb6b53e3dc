"""The one way in which a command ends because of what the user gave it."""

import errno
import logging
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import absl.logging
from absl import app, flags


class UserError(ValueError):
    """Input that cannot be honored; the message is one line: what is wrong, where, and what to do."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, short enough for a part of a line."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an absl `main`, turning a mistake of the user's into one line on stderr and exit status 1.

    So does a folder that cannot be written, and Ctrl-C with status 130; who reads its output may stop at any line.
    """

    def guarded(argv: Sequence[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            _end(str(error))
        except KeyboardInterrupt:
            _end("interrupted", 130)
        except BrokenPipeError:
            if not _output_closed():
                raise
        except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
            if error.filename is None:
                raise
            _end(f"{error.filename}: {error.strerror}; take another place, or make it one that can be written")

    _quiet()
    app.run(guarded, flags_parser=_parse_flags)


def _quiet() -> None:
    """What goes wrong inside of Orbax, TensorStore and asyncio is raised to us; their logs would bury the one line."""
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

    def hook(unraisable):
        if unraisable.exc_type is KeyboardInterrupt:  # in a callback of the garbage collector, which would swallow it
            threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        elif str(unraisable.exc_value) != "Event loop is closed":  # TensorStore's writers, after another one has failed
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = hook


def _end(message: str, status: int = 1) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _output_closed() -> bool:
    """Whether nobody reads what is printed any more, as after `| head`; what is left of it then goes nowhere."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses absl flags; those of ml-collections raise KeyError and AttributeError for keys that are not there."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _end(_one_line(error))
    except (KeyError, AttributeError) as error:
        _end(_no_key(error, argv))
    except (TypeError, ValueError, SyntaxError) as error:
        _end(_one_line(error))
    raise AssertionError("unreachable")


def _no_key(error: Exception, argv: Sequence[str]) -> str:
    """Of ml-collections' error, which quotes the key that is not there, and a near one if there is one."""
    text = _one_line(error)
    key, near = re.search(r"\w+", text), re.search(r"Did you mean (\w+)", text)
    names = [arg.lstrip("-").split("=")[0] for arg in argv if arg.startswith("--config.")]
    flag = next((name for name in names if key and key[0] in name.split(".")), "")
    return f"{flag}: no such key{f'; did you mean {near[1]!r}?' if near else ''}" if flag else text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).replace("\\n", " ").replace('"', "").replace("\\'", "'").split())


def config_values(config: Any) -> dict[str, Any]:
    """The contents of a config file's ConfigDict; a file that is not there shows only when it is read."""
    try:
        return dict(config)
    except OSError as error:
        raise UserError(f"--config: {_one_line(error).split('] ')[-1]}") from error  # of all places that were tried


def disk_space(message: Callable[[], str]) -> AbstractContextManager[None]:
    """Turns whatever a full disk causes inside into a UserError that says `message()`."""
    return _told(_disk_full, message)


def device_memory(message: Callable[[], str]) -> AbstractContextManager[None]:
    """The same for devices, or a machine, whose memory does not suffice for what JAX computes inside."""
    return _told(lambda error: "RESOURCE_EXHAUSTED" in str(error), message)


@contextmanager
def _told(is_it: Callable[[BaseException], bool], message: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_it(error):
            raise
        raise UserError(message()) from error


def _disk_full(error: BaseException | None) -> bool:
    """Whether a full disk, a quota or a file size limit is behind an error, however it was wrapped on its way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(words in str(error) for words in ("No space left", "File too large", "Disk quota exceeded")):
            return True
        error = error.__cause__ or error.__context__
    return False
