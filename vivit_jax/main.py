"""python -m vivit_jax.main --config=configs/demo.py --workdir=runs/demo [--mode=train|evaluate] [--config.KEY=VALUE]

--mode=evaluate --checkpoint=SOURCE scores that in place of a run's. --mode=probe measures the features of any
checkpoint. --mode=inspect draws a training batch as the model sees it. --mode=summary prints what the config's model
costs; without --config, what every model does. --mode=plan --topology=v5e:16x16 compiles the step for TPUs that are not
there. --mode=predict --input=clip.mp4 --checkpoint=SOURCE says what videos show; --mode=look draws what the model
attends to in them. --mode=plot --workdir=runs/demo draws loss and accuracy.
"""

from functools import partial
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from vivit_jax import errors, use
from vivit_jax.compiled import choose_compiler_options
from vivit_jax.config import from_dict
from vivit_jax.memory import compute_in_kept_memory
from vivit_jax.planning import command as planning

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/, whose keys --config.KEY=VALUE sets."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives: checkpoints, logs, metrics.json.")
USES = ("predict", "look", "plot")
MODES = ["train", "evaluate", "probe", "inspect", "summary", "plan", *USES]
MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
flags.adopt_module_key_flags(use)
flags.adopt_module_key_flags(planning)

COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes; or auto.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)


def main(argv) -> None:
    if len(argv) > 1:
        raise errors.UserError(f"{argv[1]!r}: flags start with --")
    config = None if CONFIG.value is None else from_dict(errors.config_values(CONFIG.value))
    # Imported only now: a mistake in the configuration shows before anything is loaded.
    if MODE.value in USES:
        use.run(MODE.value, config, WORKDIR.value)
        return
    if MODE.value == "plan":
        planning.run(config)
        return
    if MODE.value == "summary":
        from vivit_jax import summary

        for line in summary.table(summary.configured(config) if config else None):
            print(line, flush=True)
        return
    if config is None or WORKDIR.value is None:
        raise errors.UserError(
            "--config and --workdir are both needed, as in --config=configs/demo.py --workdir=runs/demo"
        )
    source = use.CHECKPOINT.value
    if source and MODE.value != "evaluate":
        raise errors.UserError(
            f"--checkpoint: is not for --mode={MODE.value}; config.init_from starts a run from other weights, "
            "and config.probe.checkpoint is probed"
        )
    from vivit_jax import ingest
    from vivit_jax.evaluation.evaluate import evaluate_checkpoint
    from vivit_jax.evaluation.probe import probe
    from vivit_jax.training import contact_sheet, loop, processes

    compute_in_kept_memory()
    choose_compiler_options()
    if COORDINATOR.value:
        processes.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    processes.on_first("ingest", lambda: ingest.ensure(config.data))
    evaluate = partial(evaluate_checkpoint, source=source) if source else loop.evaluate
    verbs = {"train": loop.train, "evaluate": evaluate, "probe": probe, "inspect": contact_sheet.inspect}
    with processes.together():
        verbs[MODE.value](config=config, workdir=Path(WORKDIR.value))


if __name__ == "__main__":
    errors.run(main)
