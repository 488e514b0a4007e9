"""Links of the documentation lead somewhere: files, headings, and paths of the repository named in code."""

import re
from pathlib import Path

import pytest
from documents import DOCS, REPOSITORY, anchors, code_spans, links, pages

# What `make lock`, a user or a command makes, and examples.
ELSEWHERE = re.compile(r"https?://|mailto:")
PATH = re.compile(r"(docs|tools|config|models|launch|requirements|test)/[\w./-]*\w")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for link in links(page):
        if ELSEWHERE.match(link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(link)
    assert not broken, f"{page}: {', '.join(broken)}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_paths_of_the_repository_named_in_code_exist(page: Path) -> None:
    if page.name == "lab-notes.md":
        pytest.skip("tells of files that are gone")
    named = [span for span in code_spans(page) if PATH.fullmatch(span)]
    missing = [path for path in named if not (REPOSITORY / path).exists()]
    assert not missing, f"{page}: {', '.join(missing)}"


def test_sources_refer_to_pages_that_exist() -> None:
    wrong = []
    for folder in ("localizer_ros", "tools", "launch", "config", "test"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.suffix not in (".py", ".yaml", ".sh"):
                continue
            for named in re.findall(r"docs/[\w./-]+\.(?:md|json)", path.read_text(encoding="utf-8")):
                if "PAGE" not in named and not (REPOSITORY / named).is_file():
                    wrong.append(f"{path.relative_to(REPOSITORY)}: {named}")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_linked_from_the_index() -> None:
    reached, waiting = set(), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [link.partition("#")[0] for link in links(page) if not ELSEWHERE.match(link)]
        waiting += [
            file for t in targets if (file := (page.parent / t).resolve()).suffix == ".md" and file.is_file()
        ]
    alone = sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if p not in reached)
    assert not alone, f"not linked from docs/README.md: {', '.join(alone)}"


def test_the_readme_is_one_screen_and_the_lab_notes_do_not_grow() -> None:
    for page, most in ((REPOSITORY / "README.md", 85), (DOCS / "lab-notes.md", 300)):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= most, f"{page}: at most {most} lines"
