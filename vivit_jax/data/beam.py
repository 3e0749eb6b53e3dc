"""Re-encoding on Apache Beam, which is an extra."""

from typing import Any

import apache_beam as beam

from vivit_jax.data import clips, workers
from vivit_jax.data.clips import Job


class Encode(beam.DoFn):
    """In a process of its own: what crashes there would make the runner try it again, and give up."""

    def setup(self):
        self.encode = workers.Isolated(clips.encode, clips.TIME_LIMIT)

    def process(self, job: Job):
        yield from clips.finish(job, *self.encode(job))

    def teardown(self):
        self.encode.close()


def examples(jobs: list[Job]) -> Any:
    """A transform that makes the (key, example) pairs of those jobs that go well."""
    return beam.Create(jobs) | beam.Reshuffle() | beam.ParDo(Encode())
