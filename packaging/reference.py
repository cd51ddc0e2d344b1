"""Writes docs/reference from the program's help and from the JSON schema of pipelines:

    python3 packaging/reference.py target/release/pipe [DIR]

A test (python/tests/test_pages.py) fails where the pages are not what this writes.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def help_of(program: str, command: list[str]) -> str:
    """What `pipe COMMAND --help` prints, without spaces at the ends of lines."""
    wide = os.environ | {"COLUMNS": "100"}
    done = subprocess.run(
        [program, *command, "--help"], capture_output=True, text=True, check=True, env=wide
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def commands_below(text: str) -> list[str]:
    """The names in the list of commands of a help."""
    lines = iter(text.splitlines())
    names = []
    for line in lines:
        if line == "Commands:":
            for entry in lines:
                if not entry.strip():
                    break
                if found := re.match(r"  ([a-z-]+)\b", entry):
                    names.append(found[1])
    return [name for name in names if name != "help"]


def commands(program: str) -> str:
    page = ["# Commands", "", "What `pipe COMMAND --help` prints."]

    def visit(command: list[str]) -> None:
        text = help_of(program, command)
        page.extend(["", "#" * min(2 + len(command), 3) + f" `{' '.join(['pipe', *command])}`", "", "```text", text, "```"])
        for name in commands_below(text):
            visit([*command, name])

    visit([])
    return "\n".join(page) + "\n"


class Schema:
    """A JSON schema with its definitions."""

    def __init__(self, whole: dict):
        self.whole = whole

    def resolved(self, part: dict) -> dict:
        """A part in the place of its reference; what stands beside the reference is stronger."""
        if "$ref" not in part:
            return part
        there = self.whole
        for name in part["$ref"].removeprefix("#/").split("/"):
            there = there[name]
        return self.resolved(there) | {key: value for key, value in part.items() if key != "$ref"}

    def forms(self, part: dict) -> list[dict]:
        """The alternatives of a value; that it may be a parameter is true of all."""
        part = self.resolved(part)
        inner = part.get("anyOf") or part.get("oneOf")
        if not inner:
            return [part]
        found = [form for each in inner if each != {"$ref": "#/$defs/parameter"} for form in self.forms(each)]
        return [form for form in found if form.get("type") != "null"]

    def value(self, part: dict) -> str:
        """The kinds of values that are taken, in words."""
        words = []
        for form in self.forms(part):
            if "const" in form:
                word = f"`{form['const']}`"
            elif "enum" in form:
                word = ", ".join(f"`{value}`" for value in form["enum"])
            else:
                types = form.get("type", "mapping" if "properties" in form else [])
                types = [types] if isinstance(types, str) else types
                names = {"array": "list", "object": "mapping", "boolean": "true or false", "string": "text"}
                word = " or ".join(names.get(name, name) for name in types if name != "null")
            if word and word not in words:
                words.append(word)
        return ", ".join(words)

    def rows(self, properties: dict, prefix: str = "", depth: int = 0) -> list[str]:
        """A line of a table for each key, the keys of a mapping below it."""
        rows = []
        for key, part in properties.items():
            if key == "<<":
                continue
            whole = self.resolved(part)
            default = json.dumps(whole["default"], ensure_ascii=False) if "default" in whole else ""
            if default == "null" or default.startswith("{"):
                default = ""  # the keys of a mapping have theirs
            cells = [
                f"`{prefix}{key}`",
                self.value(part),
                f"`{default}`" if default else "",
                " ".join(whole.get("description", "").split()),
                whole.get("x-class", ""),
            ]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            if depth < 3:
                for form in self.forms(part):
                    rows += self.rows(form.get("properties", {}), f"{prefix}{key}.", depth + 1)
        return rows


HEAD = ["", "| key | value | default | meaning | class |", "|---|---|---|---|---|"]


def keys() -> str:
    whole = json.loads((ROOT / "schemas/pipeline.schema.json").read_text())
    schema = Schema(whole)
    kinds = {}
    for stage in whole["properties"]["stages"]["additionalProperties"]["oneOf"]:
        stage = schema.resolved(stage)
        kinds[stage["properties"]["kind"]["const"]] = stage["properties"]
    first, *others = kinds.values()
    common = {key: part for key, part in first.items() if all(o.get(key) == part for o in others)}
    top = {key: part for key, part in whole["properties"].items() if key not in ("stages", "policies", "profiles")}
    page = [
        "# Keys of pipeline files",
        "",
        "From the JSON schema, `pipe schema`. A value may be a parameter, `${params.NAME}`. The class says what a change of the key",
        "means: [another run, more of the same one, or nothing](../pipeline.md#what-a-settings-change-means). A key without one has",
        "that of the mapping around it, or else is `identity`.",
        "",
        "## The file",
        *HEAD,
        *schema.rows(top),
        "",
        "## Every stage",
        *HEAD,
        *schema.rows(common),
    ]
    for kind, properties in kinds.items():
        own = {key: part for key, part in properties.items() if key not in common and key != "kind"}
        page += ["", f"## `kind: {kind}`", *HEAD, *schema.rows(own)]
    return "\n".join(page) + "\n"


def pages(program: str) -> dict[str, str]:
    return {"commands.md": commands(program), "keys.md": keys()}


if __name__ == "__main__":
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs/reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(sys.argv[1]).items():
        (folder / name).write_text(text)
