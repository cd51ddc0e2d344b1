"""Follows every link of a built site to its file and its heading: site_check.py FOLDER."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.names: set[str] = set()
        self.targets: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.names.add(value)
            elif key in ("href", "src") and value:
                self.targets.append(value)


def main(folder: Path) -> int:
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    followed, broken = 0, []
    for path, page in pages.items():
        if path.name in ("404.html", "toc.html"):
            continue  # their links count from wherever they are shown
        for target in page.targets:
            link = urlsplit(target)
            if link.scheme or link.netloc:
                continue
            there = (path.parent / unquote(link.path)).resolve() if link.path else path
            followed += 1
            if not there.exists():
                broken.append(f"{path.name}: {target} leads nowhere")
            elif link.fragment and there in pages and unquote(link.fragment) not in pages[there].names:
                broken.append(f"{path.name}: {target} has no such heading")
    print("\n".join(broken) or f"{len(pages)} pages, {followed} links lead somewhere")
    return 1 if broken or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
