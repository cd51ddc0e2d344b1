"""An mdBook preprocessor: links from the pages in docs/ to other files of the project.

`SITE_REPOSITORY` is the address before their paths, such as https://github.com/OWNER/NAME/blob/COMMIT.
Without it they become plain text, since the files are not part of the site.
"""

import json
import os
import posixpath
import re
import sys

LINK = re.compile(r"\[([^\]]*)\]\((\.\.?/[^)\s]*)\)")


def rewritten(page: str, text: str) -> str:
    """The text of a page, whose path counts from docs/."""

    def replace(link: re.Match) -> str:
        words, target = link.groups()
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        if path.startswith("docs/"):
            return link[0]
        address = os.environ.get("SITE_REPOSITORY")
        return f"[{words}]({address}/{path})" if address else words

    return LINK.sub(replace, text)


def visit(part: object) -> None:
    if isinstance(part, dict):
        if "content" in part and part.get("path"):
            part["content"] = rewritten(part["path"], part["content"])
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            visit(item)


if __name__ == "__main__":
    if sys.argv[1:2] == ["supports"]:
        sys.exit(0)
    _, book = json.load(sys.stdin)
    visit(book)
    json.dump(book, sys.stdout)
