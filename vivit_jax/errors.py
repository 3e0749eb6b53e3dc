"""The one way in which a command ends because of what the user gave it."""

import sys
from collections.abc import Callable, Sequence

from absl import app


class UserError(ValueError):
    """Input that cannot be honored; the message is one line: what is wrong, where, and what to do."""


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an absl `main`, turning a `UserError` into one line on stderr and exit status 1."""

    def guarded(argv: Sequence[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded)
