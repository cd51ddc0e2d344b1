"""Checks Argo Workflows against the schema that the Argo project publishes, in the form of the models that hera (PyPI)
generates from it.

    python3 tests/pipe/validate_workflow.py FILE...

With `--refused` each file must be one that the schema does not take.
"""
import sys

import yaml
from hera.workflows.models import Workflow
from pydantic import ValidationError


def wrong(content):
    """What the schema has against a file's content. The models leave out keys that they do not know, so what comes
    back must be all that went in."""
    try:
        read = Workflow.model_validate(content, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    back = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return difference(content, back)


def difference(a, b, place=""):
    """The first place at which two trees differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *b]:
            if (key in a) != (key in b):
                return f"{place}{key}: no such key"
            found = difference(a[key], b[key], f"{place}{key}.")
            if found:
                return found
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next((found for i, pair in enumerate(zip(a, b)) if (found := difference(*pair, f"{place}{i}."))), None)
    elif a != b:
        return f"{place} {a!r} is read as {b!r}"


refused = "--refused" in sys.argv
files = [argument for argument in sys.argv[1:] if argument != "--refused"]
for file in files:
    with open(file) as opened:
        error = wrong(yaml.safe_load(opened))
    if bool(error) != refused:
        sys.exit(f"{file}: {error or 'the schema takes it'}")
    print(f"{file}: {error or 'valid'}")
print(f"{len(files)} files are {'refused' if refused else 'valid'}")
