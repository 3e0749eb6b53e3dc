"""Every benchmark in a few small videos, laid out as its owners distribute it."""

import json
from pathlib import Path

import videos

Expected = dict[str, dict[str, object]]  # by split, the label (or labels) of each path


def _video(path: Path, seed: int, num_frames: int = 0) -> Path:
    return videos.write(path, num_frames=num_frames or 8 + seed % 5, seed=seed)


def kinetics(root: Path) -> Expected:
    """Two folders of parts as they are unpacked, a test split, one rotten link and one video nobody labelled."""
    names = {"train": "train.csv", "validation": "validate.csv", "test": "test.csv"}
    expected, seed = {}, 0
    for split, table in names.items():
        lines, expected[split] = ["label,youtube_id,time_start,time_end,split"], {}
        for label in ("arm wrestling", "zumba, 'hot'"):
            for _ in range(2):
                seed += 1
                file = f"{split}/part_{seed % 2}/-id_{seed}_{seed:06d}_{seed + 10:06d}.mp4"
                _video(root / file, seed)
                quoted = '"' + label + '"' if "," in label else label
                lines.append(f"{quoted},-id_{seed},{seed},{seed + 10},{split}")
                expected[split][file] = label
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / table).write_text("\n".join(lines))
    with (root / "annotations" / "train.csv").open("a") as lines:
        lines.write("\narm wrestling,gone,0,10,train")
    _video(root / "train" / "stray_000000_000010.mp4", 99)
    return expected


def something_something_v2(root: Path) -> Expected:
    numbers = {"Pushing something from left to right": "1", "Holding something": "0"}
    templates = {"Pushing [something] from left to right": "1", "Holding [something]": "0"}
    expected, seed = {}, 0
    root.mkdir(parents=True)
    (root / "something-something-v2-labels.json").write_text(json.dumps(numbers))
    for split in ("train", "validation"):
        items, expected[split] = [], {}
        for template in templates:
            for _ in range(2):
                seed += 1
                _video(root / "20bn-something-something-v2" / f"{seed}.mp4", seed).rename(
                    root / "20bn-something-something-v2" / f"{seed}.webm"
                )
                items.append(
                    {"id": str(seed), "label": "pushing a cup", "template": template, "placeholders": ["a cup"]}
                )
                label = template.replace("[something]", "something")
                expected[split][f"20bn-something-something-v2/{seed}.webm"] = label
        (root / f"something-something-v2-{split}.json").write_text(json.dumps(items))
    return expected


def epic_kitchens100(root: Path) -> Expected:
    """Segments of two recordings at 25 frames per second."""
    first, second = "EPIC-KITCHENS/P01/videos/P01_01.MP4", "EPIC-KITCHENS/P02/P02_101.MP4"
    for seed, file in enumerate((first, second), 1):
        _video((root / file).with_suffix(".mp4"), seed, 100).rename(root / file)
    (root / "EPIC_100_verb_classes.csv").write_text("id,key,instances,category\n0,take,\"['take']\",a\n1,cut,[],b\n")
    (root / "EPIC_100_noun_classes.csv").write_text("id,key,instances,category\n1,onion,[],a\n0,tap,[],b\n2,pan,[],c")
    columns = "narration_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,verb,verb_class,noun,noun_class"
    (root / "EPIC_100_train.csv").write_text(
        f"{columns}\nP01_01_0,P01_01,00:00:00.1,00:00:00.40,00:00:01.20,grab,0,red onion,1\n"
        "P01_01_1,P01_01,00:00:02.1,00:00:02.00,00:00:03.00,slice,1,pan,2\n"
        "P02_101_0,P02_101,00:00:00,00:00:00.00,00:00:00.60,slice,1,tap,0\n"
    )
    (root / "EPIC_100_validation.csv").write_text(
        f"{columns}\nP02_101_1,P02_101,00:00:03,00:00:03.20,00:00:04.00,take,0,onion,1\n"
    )
    train = {f"{first}@0.40-1.20": ("take", "onion"), f"{first}@2.00-3.00": ("cut", "pan")}
    train[f"{second}@0.00-0.60"] = ("cut", "tap")
    return {"train": train, "validation": {f"{second}@3.20-4.00": ("take", "onion")}}


def moments_in_time(root: Path) -> Expected:
    expected, seed = {}, 0
    for folder, split in (("training", "train"), ("validation", "validation")):
        lines, expected[split] = [], {}
        for label in ("yawning", "adult+female+singing"):
            for index in range(2):  # the same file names in every folder
                seed += 1
                _video(root / folder / label / f"{index}.mp4", seed)
                lines.append(f"{label}/{index}.mp4,{label},3,0")
                expected[split][f"{folder}/{label}/{index}.mp4"] = label
        (root / f"{folder}Set.csv").write_text("\n".join(lines))
    (root / "moments_categories.txt").write_text("yawning,0\nadult+female+singing,1\n")
    return expected


def howto100m(root: Path) -> Expected:
    """Two tasks of 100 videos, of which ten are here, and one that is too rare."""
    from vivit_jax.data.annotation_files import _part

    lines, expected = ["video_id,category_1,category_2,rank,task_id"], {"train": {}, "validation": {}}
    for task, label in ((7, "Make Tea (7)"), (12, "Fix a Bike (12)")):
        for index in range(100):
            name = f"t{task}_{index:03d}"
            lines.append(f"{name},Food,,{index},{task}")
            if index < 5:
                _video(root / "videos" / f"{name}.mp4", 10 * task + index)
                expected[_part(name)][f"videos/{name}.mp4"] = label
    lines.append("rare,Food,,1,3")
    (root / "HowTo100M_v1.csv").write_text("\n".join(lines))
    (root / "task_ids.csv").write_text("7\tMake Tea\n12\tFix a Bike\n3\tYodel\n")
    return expected


def diving48(root: Path) -> Expected:
    vocabulary = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]]
    expected, seed = {}, 0
    root.mkdir(parents=True)
    (root / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    for split in ("train", "test"):
        items, expected[split] = [], {}
        for index in range(4):
            seed += 1
            _video(root / "rgb" / f"a_{seed:05d}.mp4", seed)
            items.append({"vid_name": f"a_{seed:05d}", "label": index % 2, "start_frame": 0, "end_frame": 7})
            expected[split][f"rgb/a_{seed:05d}.mp4"] = " ".join(vocabulary[index % 2])
        (root / f"Diving48_V2_{split}.json").write_text(json.dumps(items))
    return expected


def ucf101(root: Path, number: int) -> Expected:
    """Splits turn: what is tested on in the second is trained on in the first."""
    labels = ("ApplyEyeMakeup", "YoYo")
    (root / "ucfTrainTestlist").mkdir(parents=True)
    (root / "ucfTrainTestlist" / "classInd.txt").write_text("1 ApplyEyeMakeup\r\n2 YoYo\r\n")
    expected = {}
    for split_number in (1, 2, 3):
        for split in ("train", "test"):
            lines, members = [], {}
            for label_number, label in enumerate(labels, 1):
                for group in (1, 2, 3):
                    name = f"{label}/v_{label}_g{group:02d}_c01.avi"
                    if not (root / "UCF-101" / name).exists():
                        _video(root / "UCF-101" / name, 10 * label_number + group)
                    if (group == split_number) == (split == "test"):
                        lines.append(f"{name} {label_number}" if split == "train" else name)
                        members[f"UCF-101/{name}"] = label
            (root / "ucfTrainTestlist" / f"{split}list{split_number:02d}.txt").write_text("\n".join(lines) + "\n")
            if split_number == number:
                expected[split] = members
    return expected


def hmdb51(root: Path, number: int) -> Expected:
    """The same file name in two classes; one video that a split leaves out."""
    expected = {"train": {}, "test": {}}
    (root / "testTrainMulti_7030_splits").mkdir(parents=True)
    for label_number, label in enumerate(("brush_hair", "wave")):
        for index in range(4):
            _video(root / label / f"clip_{index}_u_nm_np1_ba_goo_0.avi", 10 * label_number + index)
        for split_number in (1, 2, 3):
            uses = [(index + split_number) % 4 for index in range(4)]  # 0 or 3: neither
            lines = [f"clip_{index}_u_nm_np1_ba_goo_0.avi {use % 3} " for index, use in enumerate(uses)]
            file = f"{label}_test_split{split_number}.txt"
            (root / "testTrainMulti_7030_splits" / file).write_text("\n".join(lines) + "\n")
            for index, use in enumerate(uses if split_number == number else []):
                if use % 3:
                    split = {1: "train", 2: "test"}[use % 3]
                    expected[split][f"{label}/clip_{index}_u_nm_np1_ba_goo_0.avi"] = label
    return expected


LAYOUTS = {f"kinetics{classes}": kinetics for classes in (400, 600, 700)} | {
    "something_something_v2": something_something_v2,
    "epic_kitchens100": epic_kitchens100,
    "moments_in_time": moments_in_time,
    "howto100m": howto100m,
    "diving48": diving48,
}
LAYOUTS |= {f"ucf101/split_{n}": lambda root, n=n: ucf101(root, n) for n in (1, 2, 3)}
LAYOUTS |= {f"hmdb51/split_{n}": lambda root, n=n: hmdb51(root, n) for n in (1, 2, 3)}
CLASSES = {
    "something_something_v2": ("Holding something", "Pushing something from left to right"),
    "epic_kitchens100": {"verb": ("take", "cut"), "noun": ("tap", "onion", "pan")},
    "moments_in_time": ("yawning", "adult+female+singing"),
    "howto100m": ("Make Tea (7)", "Fix a Bike (12)"),
    "diving48": ("Back 15som 05Twis FREE", "Forward 25som NoTwis PIKE"),
}
