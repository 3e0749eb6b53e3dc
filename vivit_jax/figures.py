"""Pictures by matplotlib, the extra `plots`."""

from pathlib import Path
from typing import Any

from vivit_jax.errors import UserError
from vivit_jax.files import replacing


def new_figure(width: float, height: float, who: str) -> Any:
    """A matplotlib Figure of so many inches, on no screen; `who` wants it.

    Raises:
      UserError: matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"{who} draws with matplotlib: pip install vivit_jax[plots]") from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Path, dpi: int = 100) -> None:
    """As PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
