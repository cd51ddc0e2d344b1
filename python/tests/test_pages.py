"""Pages with the real `pipe`, whose path is `PIPE_TEST_PROGRAM`: docs/pytorch.md is typed as it
stands, and docs/reference is what the program and its schema say."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys

import pytest
from fake_pipe import PACKAGE
from test_adapters import needs
from test_with_pipe import PROGRAM, environ, pipe

PAGE = (PACKAGE.parent / "docs" / "pytorch.md").read_text()
BLOCK = re.compile(r"((?:<!-- [^\n]* -->\n)*)```(\w+)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str | None, str, str]]:
    """Each block's file, if it is one, its language and its text."""
    found = []
    for comments, language, text in BLOCK.findall(PAGE):
        file = re.search(r"<!-- file: (\S+) -->", comments)
        found.append((file and file[1], language, text))
    return found


def files() -> dict[str, str]:
    return {file: text for file, _, text in blocks() if file}


def test_the_marked_lines_are_the_program():
    marked = next(text for _, language, text in blocks() if language == "text")
    program = [line[1:] for line in marked.splitlines()]
    assert program == files()["train.py"].splitlines()


def test_what_the_page_tells_to_type(tmp_path):
    needs("torch")
    if not PROGRAM:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    for _, language, text in blocks():
        if language == "sh":
            subprocess.run(["bash", "-ec", text], cwd=tmp_path, env=environ(), check=True)
    runs = pipe(tmp_path, "runs")
    assert runs.count("completed") == 2 and "30/30" in runs and "20/20" in runs
    assert (tmp_path / "models" / "sine.pt").exists()


def test_the_program_works_by_itself(tmp_path):
    needs("torch")
    (tmp_path / "train.py").write_text(files()["train.py"])
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, env=environ(), check=True)
    assert list(tmp_path.glob("checkpoints/train/*.ckpt"))


def test_the_reference_is_what_the_program_says():
    """`PIPE_TEST_BLESS=1` writes it anew."""
    if not PROGRAM:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    root = PACKAGE.parent
    write = runpy.run_path(str(root / "packaging" / "reference.py"))["pages"]
    for name, text in write(PROGRAM).items():
        page = root / "docs" / "reference" / name
        if os.environ.get("PIPE_TEST_BLESS") == "1":
            page.write_text(text)
        assert page.read_text() == text, f"python3 packaging/reference.py {PROGRAM}"
