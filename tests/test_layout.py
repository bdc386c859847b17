"""Where everything stands in an output directory."""

from pathlib import Path

import pytest
from fakes import TARGET

from harvester.disk.layout import Layout


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_everything_has_its_place(suffix: str) -> None:
    """The names of the contract."""
    layout = Layout(Path("/out"), suffix)
    assert str(layout.final(TARGET)) == f"/out/opens/7.ndjson{suffix}"
    assert str(layout.part(TARGET)) == f"/out/opens/7.ndjson{suffix}.part"
    found = (layout.manifest, layout.errors, layout.retries, layout.summary)
    names = ["manifest.ndjson", "errors.ndjson", "retries.ndjson", "summary.json"]
    assert [str(path) for path in found] == [f"/out/{name}" for name in names]
    assert {layout.database.parent, layout.lock.parent} == {layout.state}
    assert str(layout.state) == "/out/.harvester"
