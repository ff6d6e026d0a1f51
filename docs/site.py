"""MkDocs hook: the site has the project's own folders, so links work there as they do in the repository.

Pages outside docs/ (README.md, cluster/README.md, ...) become pages of the site. Every other file that a page links to
(a test, an example, a picture) is copied to the same path.
"""

from __future__ import annotations

from pathlib import Path

from links import ROOT, links, pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Replace what MkDocs found in docs/ with the pages and what they link to; the theme's files stay."""
    docs = Path(config.docs_dir)
    site = Files([file for file in files if file.src_dir is None or Path(file.src_dir) != docs])
    found = pages()
    linked = {target for page in found for target, _ in links(page) if target.is_file()}
    for path in sorted({*found, *linked}):
        site.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return site
