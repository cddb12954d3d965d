"""The README and what it leads to: its programs run, its links lead somewhere, and it is short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "minicnn/README.md", "scripts/README.md", "benchmarks/results.md", ".github/CONTRIBUTING.md"]
PROGRAMS = [(page, n) for page, count in (("README.md", 2), ("minicnn/README.md", 1)) for n in range(count)]


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def programs(page):
    return re.findall(r"```python\n(.*?)```", text(page), re.DOTALL)


def anchors(page):
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_program_is_run():
    assert [(page, n) for page in PAGES[:2] for n in range(len(programs(page)))] == PROGRAMS


@pytest.mark.parametrize(("page", "number"), PROGRAMS)
def test_a_program_runs(page, number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = programs(page)[number]
    exec(compile(source, page, "exec"), {})
    printed = capsys.readouterr().out.split()
    assert printed
    if stated := re.search(r"print\(.*\)  # (0\.\d+), ", source):
        assert float(printed[-1]) == pytest.approx(float(stated[1]), abs=0.01)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.relative_to(ROOT)), target


def test_it_is_short():
    assert len(text("README.md").split()) <= 1200
