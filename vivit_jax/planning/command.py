"""--mode=plan, and the flags for it."""

from pathlib import Path

from absl import flags

from vivit_jax.config import Config
from vivit_jax.errors import UserError

TOPOLOGY = flags.DEFINE_string("topology", None, "plan: a TPU slice: v4, v5e, v5p, v6e or tpu7x, as in v5e:16x16.")
STEP = flags.DEFINE_enum("plan_step", "train", ["train", "evaluation"], "plan: which step.")
JSON = flags.DEFINE_string("plan_json", None, "plan: a file for its numbers.")
HLO = flags.DEFINE_string("plan_hlo", None, "plan: a file for the optimized module's text.")
SEARCH = flags.DEFINE_bool("search", False, "plan: tries meshes, remat, scan and accumulation, and says what is best.")


def run(config: Config | None) -> None:
    """Prints the plan of `config`'s step; raises UserError for what cannot be planned."""
    if config is None or TOPOLOGY.value is None:
        raise UserError("--mode=plan: needs --config and --topology, as in --topology=v5e:16x16")
    from vivit_jax.planning.report import report

    files = (None if flag.value is None else Path(flag.value) for flag in (JSON, HLO))
    report(config, TOPOLOGY.value, STEP.value, *files, search=SEARCH.value)
