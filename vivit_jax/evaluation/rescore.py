"""python -m vivit_jax.evaluation.rescore FILE ...: metrics of scores that were kept, without the model.

--average averages the views in another way; --heads counts some of the heads alone.
"""

from collections.abc import Sequence

from absl import flags

from vivit_jax import errors

AVERAGE = flags.DEFINE_enum("average", None, ["probabilities", "logits"], "Over the views; by default as evaluated.")
HEADS = flags.DEFINE_list("heads", [], "Heads that count, as in verb; by default all of them together.")


def main(argv: Sequence[str]) -> None:
    from vivit_jax.evaluation.scores import describe, load_scores

    if len(argv) < 2:
        raise errors.UserError("a file of scores is needed, as in runs/demo/scores_validation.npz")
    for path in argv[1:]:
        print(describe(path, load_scores(path).rescored(AVERAGE.value, tuple(HEADS.value)).metrics()))


if __name__ == "__main__":
    errors.run(main)
