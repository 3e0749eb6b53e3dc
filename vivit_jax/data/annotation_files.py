"""The annotation files of the benchmarks, as their owners distribute them: each becomes rows of one kind."""

import csv
import json
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vivit_jax.data.annotations import Annotations, Row, find
from vivit_jax.data.sources import read_table
from vivit_jax.errors import UserError


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"--source: {path} is not JSON: {error}") from error


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _sorted(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    return {"label": tuple(sorted({row.labels[0] for row in rows}))}


def kinetics(root: Path) -> Annotations:
    """DeepMind's CSVs; files are called as the Common Visual Data Foundation and the crawlers call them."""
    rows = []
    names = {"train": ("train.csv",), "validation": ("validate.csv", "val.csv", "validation.csv")}
    tables = {split: find(root, *files) for split, files in names.items()}
    if list(root.rglob("test.csv")):
        tables["test"] = find(root, "test.csv")
    for split, path in tables.items():
        for row in read_table(path, ("youtube_id", "time_start", "time_end"), "label,youtube_id,time_start,time_end"):
            file = f"{row['youtube_id']}_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}"
            if row.get("label"):  # held out for some test splits
                rows.append(Row(file, (row["label"],), split))
    return Annotations(rows, _sorted(rows))


def something_something(root: Path) -> Annotations:
    """Labels are templates, in which objects are called [something]."""
    stem = "something-something-v2-{}.json"
    numbers = _json(find(root, "labels.json", stem.format("labels")))
    rows = [
        Row(str(item["id"]), (item["template"].replace("[", "").replace("]", ""),), split)
        for split in ("train", "validation")
        for item in _json(find(root, f"{split}.json", stem.format(split)))
    ]
    return Annotations(rows, {"label": tuple(sorted(numbers, key=lambda name: int(numbers[name])))})


def epic_kitchens(root: Path) -> Annotations:
    """Segments of long videos, with a verb and a noun each."""
    classes = {}
    for head in ("verb", "noun"):
        table = read_table(find(root, f"EPIC_100_{head}_classes.csv"), ("id", "key"), "id,key,...")
        classes[head] = tuple(row["key"] for row in sorted(table, key=lambda row: int(row["id"])))
    columns = ("video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")
    rows = []
    for split in ("train", "validation"):
        for row in read_table(find(root, f"EPIC_100_{split}.csv"), columns, ",".join(columns)):
            labels = tuple(classes[head][int(row[f"{head}_class"])] for head in ("verb", "noun"))
            seconds = _seconds(row["start_timestamp"]), _seconds(row["stop_timestamp"])
            rows.append(Row(row["video_id"], labels, split, seconds))
    return Annotations(rows, classes)


def _seconds(timestamp: str) -> float:
    """00:01:02.34 -> 62.34"""
    hours, minutes, seconds = timestamp.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def moments_in_time(root: Path) -> Annotations:
    """`trainingSet.csv` and `validationSet.csv` have no header: class/file.mp4,label,..."""
    categories = [line.rsplit(",", 1) for line in _lines(find(root, "moments_categories.txt"))]
    rows = []
    for split, folder in (("train", "training"), ("validation", "validation")):
        with find(root, f"{folder}Set.csv").open(newline="", encoding="utf-8") as lines:
            rows += [Row(f"{folder}/{row[0]}", (row[1],), split) for row in csv.reader(lines) if "/" in row[0]]
    names = tuple(name for name, _ in sorted(categories, key=lambda item: int(item[1])))
    return Annotations(rows, {"label": names}, lambda path: "/".join(path.parts[-3:]))


def howto100m(root: Path) -> Annotations:
    """The tasks that have 100 videos, as in TimeSformer 4.6. Its partition of them was not published: 35 of 120
    parts, drawn by the video's id, are for validation."""
    table = read_table(find(root, "HowTo100M_v1.csv"), ("video_id", "task_id"), "video_id,category_1,...,task_id")
    sizes = Counter(row["task_id"] for row in table)
    names = dict(line.split("\t", 1) for line in _lines(find(root, "task_ids.csv")) if "\t" in line)
    tasks = sorted((task for task, size in sizes.items() if size >= 100), key=int)
    classes = {task: f"{names.get(task, 'task')} ({task})" for task in tasks}
    rows = [
        Row(row["video_id"], (classes[row["task_id"]],), _part(row["video_id"]))
        for row in table
        if row["task_id"] in classes
    ]
    return Annotations(rows, {"label": tuple(classes.values())})


def _part(name: str) -> str:
    return "validation" if zlib.crc32(name.encode()) % 120 < 35 else "train"


def diving48(root: Path) -> Annotations:
    """Version 2 where it is there, otherwise the first."""
    vocabulary = tuple(" ".join(parts) for parts in _json(find(root, "Diving48_vocab.json")))
    rows = [
        Row(item["vid_name"], (vocabulary[item["label"]],), split)
        for split in ("train", "test")
        for item in _json(find(root, f"Diving48_V2_{split}.json", f"Diving48_{split}.json"))
    ]
    return Annotations(rows, {"label": vocabulary})


def ucf101(root: Path, number: int) -> Annotations:
    """One of three official splits: lists of class/file.avi."""
    classes = [line.split(maxsplit=1) for line in _lines(find(root, "classInd.txt"))]
    rows = []
    for split in ("train", "test"):
        for line in _lines(find(root, f"{split}list{number:02d}.txt")):
            label, file = line.split()[0].split("/")
            rows.append(Row(Path(file).stem, (label,), split))
    return Annotations(rows, {"label": tuple(name for _, name in sorted(classes, key=lambda item: int(item[0])))})


def hmdb51(root: Path, number: int) -> Annotations:
    """One of three official splits: a list per class, of files and 1 (train), 2 (test) or 0 (neither)."""
    end, rows = f"_test_split{number}.txt", []
    first = find(root, f"*{end}")
    for path in sorted(first.parent.glob(f"*{end}")):
        label = path.name.removesuffix(end)
        for line in _lines(path):
            file, use = line.rsplit(maxsplit=1)
            rows.append(Row(f"{label}/{Path(file).stem}", (label,), {"1": "train", "2": "test"}.get(use)))
    return Annotations(rows, _sorted(rows), lambda path: f"{path.parent.name}/{path.stem}")
