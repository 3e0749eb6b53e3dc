"""What README and docs/ speak of is there: flags, keys of the configuration, files, names, links."""

import ast
import dataclasses
import importlib
import importlib.util
import itertools
import re
import sys
import textwrap

import pytest
from absl import flags

import runs
from vivit_jax import config
from vivit_jax.architecture import ModelConfig
from vivit_jax.config import Config
from vivit_jax.models.video_transformer import VideoTransformer

ROOT = runs.REPOSITORY
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BY_SCRIPT = {"docs/plans.md"}  # what a script writes, not always there
# Flags of other programs: Beam's, those of tfds and mkdocs, and of what people come from.
FOREIGN = {"runner", "project", "region", "temp_location", "flink_master", "spark_master_url", "direct_num_workers"}
FOREIGN |= {"direct_running_mode", "imports", "manual_dir", "file_format", "strict", "help", "cfg"}
FILES = {"csv", "json", "md", "py", "safetensors"}
CONFIG = {field.name: field.type for field in dataclasses.fields(Config)}
SECTIONS = {name: kind for name, kind in CONFIG.items() if dataclasses.is_dataclass(kind)}
PYTHON = {"model": {*dir(VideoTransformer), "config", "preprocessing"}}  # what a variable of that name has


def keys(section):
    kind = SECTIONS[section]
    own = {field.name for field in dataclasses.fields(ModelConfig if section == "model" else kind)}
    return own | ({"name"} if section == "model" else set())


def expanded(text):
    """`a{b,c}d` -> abd, acd."""
    if not (braces := re.search(r"\{([^{}]*)\}", text)):
        return [text]
    head, tail = text[: braces.start()], text[braces.end() :]
    return list(itertools.chain.from_iterable(expanded(head + part + tail) for part in braces[1].split(",")))


def text_of(page):
    """A page without the first cells of a migration guide's tables, which are about others."""
    lines = page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    if page.name == "migration.md":
        lines = [re.sub(r"^\|(`[^`]*`|[^|`])*\|", "|", line) for line in lines]
    return "\n".join(lines)


def code_of(page):
    """What stands in backticks or is indented."""
    text = text_of(page)
    return [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^    .*$", text, re.MULTILINE)]


def flags_of(program):
    """Of a module or a script, by name."""
    if program.startswith("benchmarks/"):
        return set(re.findall(r'add_argument\("--(\w+)"', (ROOT / program).read_text()))
    name = program if program.startswith("vivit_jax") else program.split("/")[-1].removesuffix(".py")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        module = importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    if name == "vivit_jax.ingest" and "source" not in flags.FLAGS:
        module.define_flags()
    found = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)}
    if name == "export_stablehlo":
        found |= flags_of("scripts/convert_checkpoint.py")
    return found | {f"no{name}" for name in found}


PROGRAMS = ["vivit_jax.main", "vivit_jax.ingest", "vivit_jax.evaluation.rescore"]
PROGRAMS += ["scripts/convert_checkpoint.py", "scripts/export_stablehlo.py"]
PROGRAMS += sorted(f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.fixture(scope="module")
def known():
    return {program: flags_of(program) for program in PROGRAMS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_are_there(page, known):
    every = FOREIGN | set().union(*known.values())
    for code in code_of(page):
        program = re.search(r"python (?:-m )?([\w./]+)", code)
        own = known.get(program[1]) if program else None
        for flag in re.findall(r"(?<![\w-])--(?!xla_)([a-z]\w*)(?![\w-]*\.\w)", code):  # xla_: the compiler's own
            where = own | FOREIGN if own is not None else every
            assert flag in where, f"{page.name}: --{flag} in {code.strip()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_are_there(page):
    for code in code_of(page):
        for match in re.findall(r"(?:--|(?<![\w./]))config\.([\w.]+(?:\{[\w,]+\})?)(?![\w(])", code):
            for key in expanded(match.rstrip(".")):
                section, _, name = key.partition(".")
                there = section in CONFIG or section in FILES or section.isupper() or hasattr(config, section)
                assert there, f"{page.name}: config.{key}"
                if name and section in SECTIONS and not name.isupper():
                    assert name in keys(section), f"{page.name}: config.{key}"
        for section, match in re.findall(rf"(?<![\w./'\"])({'|'.join(SECTIONS)})\.(\{{[\w,]+\}}|\w+)", code):
            for name in expanded(match):
                assert name in keys(section) | PYTHON.get(section, set()) | FILES, f"{page.name}: {section}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_links_are_there(page):
    folders = "configs|benchmarks|scripts|tests|docs|vivit_jax|notebooks"
    for code in code_of(page):
        for match in re.findall(rf"(?<![\w./])(?:{folders})/[\w./{{}},-]*[\w}}]", code):
            if not match.startswith("configs/Kinetics"):  # TimeSformer's
                for name in expanded(match):
                    assert (ROOT / name).exists() or name in BY_SCRIPT, f"{page.name}: {name}"
    for link in re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_are_there(page):
    for name in re.findall(r"(?<![\w/.])vivit_jax(?:\.[A-Za-z_]\w*)+", text_of(page)):
        parts = name.split(".")
        at = next(n for n in range(len(parts), 0, -1) if is_module(".".join(parts[:n])))
        thing = importlib.import_module(".".join(parts[:at]))
        for part in parts[at:]:
            assert hasattr(thing, part), f"{page.name}: {name}"
            thing = getattr(thing, part)


def is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_is_python(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        ast.parse(textwrap.dedent(block))


def test_the_site_has_every_key_flag_and_scheme():
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "scripts" / "mkdocs_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    table = "\n".join(hooks.config_tables())
    for section in SECTIONS:
        for name in keys(section) - ({"name"} if section == "model" else set()):
            assert f"| `config.{section}.{name}` |" in table
    assert (
        "| `config.data.stride` | `float` | `2.0` | frames between two that are kept; 0: as target_fps says |" in table
    )
    assert "| `config.train.keep` | `int` | `2` | checkpoints; may change on an existing workdir |" in table
    assert "| `32 / 255` |" in table and "starts: spread evenly" in table.replace("clips start", "starts")
    assert {f"`--{name}`" for name in ("mode", "input", "plan_json", "coordinator")} <= set(
        re.findall(r"`--\w+`", "\n".join(hooks.flag_table("vivit_jax.main")))
    )
    schemes = "\n".join(hooks.scheme_table())
    assert "| `divided` | TimeSformer T+S: time, then space | time, without CLS; space |" in schemes


def test_the_options_of_the_compiler_are_those_that_were_tried(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    text = (ROOT / "docs" / "pods.md").read_text()
    cycles = importlib.import_module("cycles")
    given = {f"--{option}={str(value).lower()}" for option, value in cycles.OPTIONS.items()}
    assert given | {cycles.STACK} == set(re.findall(r"--xla_\w+=\w+", text))
