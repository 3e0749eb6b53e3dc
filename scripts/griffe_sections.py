"""For mkdocstrings: our docstrings have no empty line before Args, Returns and Raises, and griffe wants one."""

import re
from typing import Any

import griffe


class Sections(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"\n(?=(?:Args|Returns|Raises|Yields):\n)", "\n\n", obj.docstring.value)
