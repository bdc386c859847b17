"""The sizes of an earlier harvest, from its manifest."""

from contextlib import closing
from pathlib import Path

import pytest

from harvester.errors import ConfigError
from harvester.input.order import KnownSizes
from harvester.model import Target

MOST = 2**63 - 1


def line(campaign_id: str, pages: object, report: str = "opens") -> str:
    """A line of a manifest, as far as it matters here."""
    return f'{{"report":"{report}","campaign_id":"{campaign_id}","pages":{pages}}}\n'


def manifest(path: Path, *lines: str) -> Path:
    """A manifest of these lines."""
    path = path / "manifest.ndjson"
    path.write_text("".join(lines))
    return path


def test_the_longest_campaigns_come_first(tmp_path: Path) -> None:
    """By the pages of all their reports; those that are not known keep their order, at the end."""
    path = manifest(tmp_path, line("1", 2), line("2", 3), line("1", 2, "clicks"))
    with closing(KnownSizes()) as sizes:
        sizes.read(path)
        assert list(sizes.longest_first(["9", "2", "8", "1"])) == ["1", "2", "9", "8"]
        assert sizes.pages(Target("clicks", "1")) == 2
        assert sizes.pages(Target("clicks", "2")) == 0


def test_the_largest_numbers_can_be_added_up(tmp_path: Path) -> None:
    """What fits a column fits it twice over several reports, too."""
    path = manifest(tmp_path, line("1", 5), line("2", MOST), line("2", MOST, "clicks"))
    with closing(KnownSizes()) as sizes:
        sizes.read(path)
        assert list(sizes.longest_first(["1", "2"])) == ["2", "1"]


@pytest.mark.parametrize("pages", [MOST + 1, 10**30, -1, -(10**30), 1.5, '"1"', "null"])
def test_a_number_that_no_campaign_has_is_refused(tmp_path: Path, pages: object) -> None:
    """Like any other line that is none of a manifest; the message names the file."""
    path = manifest(tmp_path, line("1", 2), line("2", pages))
    with (
        closing(KnownSizes()) as sizes,
        pytest.raises(ConfigError, match=r"^sizes: .* is no manifest") as no,
    ):
        sizes.read(path)
    assert str(path) in str(no.value)
