"""What the documentation site takes from the repository itself; mkdocs.yml names this file.

README, CHANGELOG and CONTRIBUTING are pages, and files that a page links to come along. On any page `<!-- config -->`,
`<!-- schemes -->` and `<!-- flags MODULE -->` stand for tables that are made of the code.
"""

import ast
import dataclasses
import importlib
import inspect
import io
import posixpath
import re
import sys
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
GENERATED = {"TPU plans": "plans.md"}  # pages that a script writes: listed where they are there
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(\))")
MARKER = re.compile(r"<!-- (config|schemes|flags) ?([\w.]*) -->")


def on_config(config: Any) -> Any:
    sys.path.insert(0, str(ROOT))  # the tables are of this checkout, whichever is installed
    there = [{title: name} for title, name in GENERATED.items() if (ROOT / "docs" / name).exists()]
    next(section["Guide"] for section in config.nav if "Guide" in section).extend(there)
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in sorted({name for page in sources() for name in outside(page)}):
        files.append(File.generated(config, f"repository/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    source = next((name for name, made in PAGES.items() if made == page.file.src_uri), f"docs/{page.file.src_uri}")

    def link(match: re.Match) -> str:
        name = target(source, match[2])
        found = PAGES.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else f"repository/{name}")
        return f"{match[1]}{found}{match[3] or ''}{match[4]}"

    return MARKER.sub(lambda marker: table(marker[1], marker[2]), LINK.sub(link, markdown))


def sources() -> list[str]:
    """Every page, as a path in the repository."""
    return [*PAGES, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def target(source: str, link: str) -> str:
    """What a relative link of a page leads to, as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def outside(source: str) -> Iterator[str]:
    """Files that a page links to and that are no pages."""
    for match in LINK.finditer((ROOT / source).read_text(encoding="utf-8")):
        name = target(source, match[2])
        if name not in PAGES and not name.startswith("docs/") and (ROOT / name).is_file():
            yield name


def table(kind: str, what: str) -> str:
    makers = {"config": config_tables, "schemes": scheme_table, "flags": lambda: flag_table(what)}
    return "\n".join(makers[kind]())


def config_tables() -> Iterator[str]:
    """Every section of a configuration, and every key of it."""
    from vivit_jax.architecture import ModelConfig
    from vivit_jax.config import Config
    from vivit_jax.sections import Model

    own = [field for field in dataclasses.fields(Config) if not dataclasses.is_dataclass(field.type)]
    yield from ["## config", "", str(Config.__doc__), *rows("config", own, comments(Config)), ""]
    for section in dataclasses.fields(Config):
        if not dataclasses.is_dataclass(section.type):
            continue
        kind = ModelConfig if section.type is Model else typing.cast(type, section.type)
        fields = list(dataclasses.fields(kind))
        yield from [f"## config.{section.name}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
        if kind is ModelConfig:
            yield "`config.model.name` is one of `list_models()`; what is not set is as that name has it, or as here."
        if section.metadata.get("resume"):
            yield "All of it may change on an existing workdir."
        yield from [*rows(f"config.{section.name}", fields, comments(kind)), ""]


def rows(path: str, fields: list[dataclasses.Field], said: dict[str, tuple[str, str | None]]) -> Iterator[str]:
    yield from ["", "| key | type | default | |", "|---|---|---|---|"]
    for field in fields:
        about, default = said.get(field.name, ("", None))
        default = default or ("" if field.default is dataclasses.MISSING else repr(field.default))
        about += "; may change on an existing workdir" if field.metadata.get("resume") else ""
        cells = f"`{path}.{field.name}`", f"`{spelled(field.type)}`", f"`{default}`" * bool(default), about
        yield f"| {' | '.join(escaped(cell.removeprefix('; ')) for cell in cells)} |"


def escaped(cell: str) -> str:
    """In a table; what stands in backticks there needs nothing."""
    return cell if cell.startswith("`") else cell.replace("|", r"\|")


def spelled(kind: Any) -> str:
    """A type as a reader of the page would write it."""
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(map(repr, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def comments(kind: type) -> dict[str, tuple[str, str | None]]:
    """The comment beside each field of a dataclass, or above it; and its default as it is written, if it is a value."""
    source = inspect.getsource(kind)
    by_line = remarks(source)
    body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first, above = node.lineno, []
            while (first := first - 1) in by_line and by_line[first][0]:
                above.insert(0, by_line[first][1])
            about = " ".join([*above, by_line.get(node.end_lineno or 0, (False, ""))[1]]).strip()
            value = None if node.value is None or isinstance(node.value, ast.Call) else ast.unparse(node.value)
            found[node.target.id] = about, value
    return found


def remarks(source: str) -> dict[int, tuple[bool, str]]:
    """Comments by line, and whether they have it for themselves."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: (not token.line[: token.start[1]].strip(), token.string.lstrip("# "))
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def scheme_table() -> Iterator[str]:
    """The values of `attention`, as architecture.py says what they are."""
    from vivit_jax import architecture
    from vivit_jax.models.attention import SCHEMES

    source = inspect.getsource(architecture)
    said = {line.strip().split('"')[1]: remark for n, (_, remark) in remarks(source).items()
            if (line := source.splitlines()[n - 1]).lstrip().startswith('"')}  # fmt: skip
    yield from ["| `attention` | | its attentions, in order |", "|---|---|---|"]
    for name, scheme in SCHEMES.items():
        steps = [" and ".join(step.axes) + ("" if step.cls else ", without CLS") for step in scheme.steps]
        order = "; ".join(steps) + (" (both from the same input)" if scheme.parallel else "")
        yield f"| `{name}` | {said[name]} | {order} |"


def flag_table(module: str) -> Iterator[str]:
    """The flags of a command, from absl."""
    found = importlib.import_module(module)
    if hasattr(found, "define_flags") and "source" not in flags.FLAGS:
        found.define_flags()
    yield from ["| flag | default | |", "|---|---|---|"]
    own = flags.FLAGS.get_key_flags_for_module(found)
    for flag in sorted(own, key=lambda flag: flag.name):
        values = getattr(flag.parser, "enum_values", None)
        about = re.sub(r"^<.*?>: ", "", flag.help or "") + (f" {', '.join(values)}" if values else "")
        default = "" if flag.default in (None, "", []) else f"`{str(flag.default_as_str).strip(chr(39))}`"
        yield f"| `--{flag.name}` | {default} | {escaped(about)} |"
