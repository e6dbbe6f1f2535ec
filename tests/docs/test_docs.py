"""Pages say what the code does: pictures are runs of the protocol, every policy and every field has its place."""

import doctest
import importlib.util
import itertools
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from stalewise.protocol import POLICIES
from stalewise.study import Cluster, Group, Schedule, Target, Workload

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def timelines():
    """The script that draws the pictures."""
    spec = importlib.util.spec_from_file_location("timelines", DOCS / "timelines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_policy_has_a_picture_and_a_section(timelines):
    """And every picture is shown."""
    page = (DOCS / "policies.md").read_text()
    assert {schedule["policy"] for schedule, _ in timelines.SCENES.values()} == set(POLICIES)
    for name in POLICIES:
        assert f"\n## {name}\n" in page
    for name in timelines.SCENES:
        assert f"](policies/{name}.svg)" in page


def test_bars_are_the_gradients_the_server_counted(timelines):
    """Fate by fate, and none overlaps another of its worker."""
    for scene in timelines.SCENES.values():
        line = timelines.record(scene)
        tally, counts = line.server.tally, line.counts()
        assert counts["applied"] == tally.applied > 0
        assert counts["dropped"] == tally.dropped
        assert counts["cancelled"] == tally.cancelled
        assert counts["unsent"] == tally.unsent
        assert counts["in flight"] == tally.in_flight
        assert len(line.steps) == line.server.version
        for worker in range(4):
            mine = [bar for bar in line.bars if bar.worker == worker]
            assert all(one.end <= other.begin for one, other in itertools.pairwise(mine))


def test_pictures_are_those_of_this_code(timelines, tmp_path):
    """Byte for byte, with the pinned version of matplotlib."""
    pinned = re.search(r"^matplotlib==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    timelines.main(tmp_path)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in (DOCS / "policies").iterdir())
    if version("matplotlib") != pinned[1]:
        pytest.skip(f"pictures are compared with matplotlib {pinned[1]} alone")
    for name in made:
        assert (tmp_path / name).read_bytes() == (DOCS / "policies" / name).read_bytes(), name


def test_links_resolve():
    """Files and headings that pages point to exist."""
    for page in (*DOCS.glob("*.md"), ROOT / "README.md"):
        text = page.read_text()
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, heading = target.partition("#")
            if "://" in target:
                continue
            assert (page.parent / name).exists() if name else True, (page.name, target)
            assert not heading or f"\n## {heading}\n" in text, (page.name, target)
        for name in re.findall(r"`((?:docs|validation|benchmarks|tests|examples)/[\w./-]+\.\w+)`", text):
            assert (ROOT / name).exists(), (page.name, name)


@pytest.mark.parametrize("section", [Workload, Cluster, Group, Schedule, Target])
def test_every_field_of_a_study_is_explained(section):
    """By its name, in docs/study.md."""
    page = (DOCS / "study.md").read_text()
    assert [name for name in section.model_fields if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md") if ">>> " in path.read_text()))
def test_examples_of_a_page_give_what_it_says(page):
    """Every page with examples."""
    found = doctest.testfile(str(DOCS / page), module_relative=False)
    assert found.attempted > 0
    assert found.failed == 0
