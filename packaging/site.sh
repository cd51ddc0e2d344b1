#!/usr/bin/env bash
# Builds the pages in docs/ as a site with mdBook, and follows every link of it:
#
#   packaging/site.sh [DIR]        # target/site if none is given
#
# SITE_REPOSITORY is the address of the project's files, for links to those that are no pages.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-target/site}")
mdbook build docs --dest-dir "$out"
python3 packaging/site_check.py "$out"
echo "$out/index.html"
