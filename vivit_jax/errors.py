"""The one way in which a command ends because of what the user gave it."""

import errno
import logging
import re
import sys
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
    """Runs an absl `main`, turning a mistake of the user's into one line on stderr and exit status 1."""

    def guarded(argv: Sequence[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            _end(str(error))

    _quiet()
    app.run(guarded, flags_parser=_parse_flags)


def _quiet() -> None:
    """What goes wrong inside of Orbax, TensorStore and asyncio is raised to us; their logs would bury the one line."""
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":  # TensorStore's writers, after another one has failed
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = hook


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses absl flags; those of ml-collections raise KeyError and AttributeError for keys that are not there."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _end(_one_line(error))
    except (KeyError, AttributeError) as error:
        _end(f"{_flag_of(error, argv)}{_one_line(error)}")
    except (TypeError, ValueError, SyntaxError) as error:
        _end(_one_line(error))
    raise AssertionError("unreachable")


def _flag_of(error: Exception, argv: Sequence[str]) -> str:
    key = re.search(r"\w+", str(error))
    names = [arg.lstrip("-").split("=")[0] for arg in argv if arg.startswith("--config.")]
    return next((f"{name}: there is no " for name in names if key and key[0] in name.split(".")), "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).replace("\\n", " ").replace('"', "").replace("\\'", "'").split())


def config_values(config: Any) -> dict[str, Any]:
    """The contents of a config file's ConfigDict; a file that is not there shows only when it is read."""
    try:
        return dict(config)
    except OSError as error:
        raise UserError(f"--config: {_one_line(error)}") from error


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
