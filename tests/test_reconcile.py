"""The API's own counts beside ours."""

import pytest

from harvester.campaign.reconcile import distinct_contacts, findings


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([], 0),
        ([b'{"contact_id":"1"}\n'] * 3, 1),
        ([b'{"contact_id":"1"}\n', b'{"contact_id":1}\n', b'{"contact_id":"2"}\n'], 2),
        ([b'{"contact_id":null}\n', b"{}\n"], 0),
        ([b'{"contact_id":"1","email":"\\ud800"}\n', b'{"contact_id":"2"}\n'], 2),
        ([b'{"contact_id":123456789012345678901234567890}\n'], 1),
    ],
)
def test_contacts_are_counted_once(lines: list[bytes], count: int) -> None:
    """As text or as a number; rows that name none do not count."""
    assert distinct_contacts(lines) == count


@pytest.mark.parametrize(
    ("summary", "contacts", "reconciled"),
    [
        ({"opens": 5, "clicks": 1}, 5, True),
        ({"opens": 5}, 4, False),
        ({"opens": 5}, 6, False),
        ({"opens": 0}, 0, True),
        ({"clicks": 5}, 5, None),
        ({}, 0, None),
        (None, 5, None),
    ],
)
def test_they_agree_differ_or_cannot_be_compared(
    summary: dict[str, int] | None, contacts: int, reconciled: bool | None
) -> None:
    """A count that the API did not give is no difference."""
    assert findings("opens", summary, contacts) == {
        "summary": summary,
        "distinct_contacts": contacts,
        "reconciled": reconciled,
    }
