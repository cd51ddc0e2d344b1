"""Checks every shipped YAML file against the schema that its first line names, with jsonschema (PyPI).

    python3 tests/pipe/validate_yaml.py

Started in the project's folder. The schemas' own examples must be valid, and files that are wrong in their form refused.
"""
import json
import pathlib
import re
import sys

import yaml
from jsonschema import Draft202012Validator

# What only the program can know: names of stages and policies, values that do not go together.
REFUSED = """file_is_a_list file_is_text name_is_a_number name_missing key_unknown key_unknown_deep kind_unknown
    stage_is_text stage_name stage_without_kind stages_are_a_list stages_missing top_level_unknown type_number type_list
    type_time value_range value_unknown policy_kind_unknown policy_key_unknown retry_on_unknown value_keep_none
    matrix_no_list several""".split()


def yaml_1_2(text):
    """As YAML 1.2 has it: `1e-3` is a number. PyYAML follows 1.1, where it is text."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    number = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
    loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))
    return yaml.load(text, loader)


def examples(schema, root, place="#"):
    """Every example in a schema with the schema that it belongs to."""
    if isinstance(schema, dict):
        for example in schema.get("examples", []) if isinstance(schema.get("examples"), list) else []:
            yield place, {**{k: v for k, v in schema.items() if k != "examples"}, "$defs": root.get("$defs", {})}, example
        for key, value in schema.items():
            if key not in ("examples", "default", "const", "enum"):
                yield from examples(value, root, f"{place}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from examples(value, root, f"{place}/{index}")


schemas = {path: json.loads(path.read_text()) for path in pathlib.Path("schemas").glob("*.json")}
tried = 0
for path, schema in schemas.items():
    Draft202012Validator.check_schema(schema)
    for place, part, example in examples(schema, schema):
        errors = list(Draft202012Validator(part).iter_errors(example))
        assert not errors, f"{path}: the example at {place} is not valid: {errors[0].message}"
        tried += 1
print(f"{tried} examples are valid")
assert tried > 40, tried

valid = 0
for path in sorted([*pathlib.Path("pipelines").rglob("*.yaml"), *pathlib.Path("configs").rglob("*.yaml")]):
    text = path.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named, f"{path}: its first line names no schema"
    schema = json.loads((path.parent / named[1]).read_text())
    errors = sorted(Draft202012Validator(schema).iter_errors(yaml_1_2(text)), key=lambda e: -len(e.path))
    assert not errors, f"{path}: {errors[0].json_path}: {errors[0].message}"
    valid += 1
print(f"{valid} files are valid")

pipeline = Draft202012Validator(json.loads(pathlib.Path("schemas/pipeline.schema.json").read_text()))
for name in REFUSED:
    text = pathlib.Path(f"tests/messages/{name}.yaml").read_text()
    if pipeline.is_valid(yaml_1_2(text)):
        sys.exit(f"{name}.yaml: the schema takes it, and pipe does not")
print(f"{len(REFUSED)} bad files are refused")
