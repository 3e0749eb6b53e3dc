"""What a run writes down as it goes."""

import json
from pathlib import Path
from typing import Any

from vivit_jax.files import read_json_lines, write_bytes


class Log:
    """Scalars by step, in `workdir/log.jsonl` and as TensorBoard events; a resumed run drops what it redoes."""

    def __init__(self, workdir: Path, start: int):
        path = workdir / "log.jsonl"
        kept = [entry for entry in read_json_lines(path) if entry["step"] <= start]
        write_bytes(path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        self._lines = path.open("a", encoding="utf-8")
        self._workdir, self._purge_step = workdir, start + 1 if start else None
        self._events: Any = None

    def _open_events(self) -> Any:
        from tensorboardX import SummaryWriter  # imports torch where it is there: while devices work, not before

        return SummaryWriter(str(self._workdir), purge_step=self._purge_step)

    def write(self, step: int, values: dict[str, float], prefix: str) -> None:
        self._lines.write(json.dumps({"step": step, **{f"{prefix}/{k}": v for k, v in values.items()}}) + "\n")
        self._lines.flush()
        self._events = self._events or self._open_events()
        for name, value in values.items():
            self._events.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        self._lines.close()
        if self._events:
            self._events.close()
