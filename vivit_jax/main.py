"""python -m vivit_jax.main --config=configs/demo.py --workdir=runs/demo [--mode=train|evaluate] [--config.KEY=VALUE]

--mode=inspect draws a training batch as the model sees it. --mode=summary prints what the config's model costs; without
--config, what every model does. --mode=plan --topology=v5e:16x16 compiles the step for TPUs that are not there.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from vivit_jax import errors
from vivit_jax.config import Config, from_dict

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/, whose keys --config.KEY=VALUE sets."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives: checkpoints, logs, metrics.json.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "inspect", "summary", "plan"], "What to do.")

COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes; or auto.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)

TOPOLOGY = flags.DEFINE_string("topology", None, "plan: a TPU slice: v4, v5e, v5p, v6e or tpu7x, as in v5e:16x16.")
PLAN_STEP = flags.DEFINE_enum("plan_step", "train", ["train", "evaluation"], "plan: which step.")
PLAN_JSON = flags.DEFINE_string("plan_json", "", "plan: a file for its numbers.")
PLAN_HLO = flags.DEFINE_string("plan_hlo", "", "plan: a file for the optimized module's text.")
SEARCH = flags.DEFINE_bool("search", False, "plan: tries meshes, remat, scan and accumulation, and says what is best.")


def main(argv) -> None:
    if len(argv) > 1:
        raise errors.UserError(f"{argv[1]!r}: flags start with --")
    config = None if CONFIG.value is None else from_dict(errors.config_values(CONFIG.value))
    # Imported only now: a mistake in the configuration shows before anything is loaded.
    if MODE.value == "summary":
        from vivit_jax import summary

        for line in summary.table({config.model.name: config.model.architecture()} if config else None):
            print(line, flush=True)
    elif MODE.value == "plan":
        _plan(config)
    else:
        _run(config)


def _plan(config: Config | None) -> None:
    if config is None or TOPOLOGY.value is None:
        raise errors.UserError("--mode=plan: needs --config and --topology, as in --topology=v5e:16x16")
    from vivit_jax.planning import report

    files = PLAN_JSON.value, PLAN_HLO.value
    report.run(config, TOPOLOGY.value, PLAN_STEP.value, *files, SEARCH.value)


def _run(config: Config | None) -> None:
    if config is None or WORKDIR.value is None:
        raise errors.UserError(
            "--config and --workdir are both needed, as in --config=configs/demo.py --workdir=runs/demo"
        )
    from vivit_jax import ingest
    from vivit_jax.training import contact_sheet, loop, processes

    if COORDINATOR.value:
        processes.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    processes.on_first("ingest", lambda: ingest.ensure(config.data))
    verbs = {"train": loop.train, "evaluate": loop.evaluate, "inspect": contact_sheet.inspect}
    verbs[MODE.value](config, Path(WORKDIR.value))


if __name__ == "__main__":
    errors.run(main)
