"""python scripts/convert_checkpoint.py SOURCE TARGET: any checkpoint that `load_model` reads -> a directory.

TARGET gets config.json, preprocessor_config.json and model.safetensors: for transformers where it has the model, for
`vivit_jax.load_model` always.
"""

import ast
from collections.abc import Sequence
from typing import Any

from absl import flags

import vivit_jax
from vivit_jax import errors

STEP = flags.DEFINE_string("step", "latest", "Of a workdir: a number, latest, or best.")
IGNORE = flags.DEFINE_list(
    "ignore", [], "Parts of parameter names that may be missing, unexpected or of another shape."
)
FIELD = flags.DEFINE_multi_string("field", [], "KEY=VALUE, a field of the model's config, as in num_frames=16.")


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def load(argv: Sequence[str]) -> tuple[Any, str]:
    """The model that the command line speaks of, and where to write."""
    if len(argv) != 3:
        raise errors.UserError("SOURCE and TARGET are both needed, and nothing else")
    _, source, target = argv
    fields = {key: _value(value) for key, _, value in (field.partition("=") for field in FIELD.value)}
    step: Any = _value(STEP.value)
    return vivit_jax.load_model(source, step=step, ignore=tuple(IGNORE.value), **fields), target


def main(argv: Sequence[str]) -> None:
    model, target = load(argv)
    vivit_jax.save_pretrained(model, target)
    print(f"{target}: {model.config.attention}, {model.config.num_classes} classes, {model.config.num_frames} frames")


if __name__ == "__main__":
    errors.run(main)
