"""What the page says: why a run ended, what a failure means, and what to do next."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from harvester.reporting.page.scan import DATE_FIELDS
from harvester.reporting.page.sources import Campaigns, Run

_ADDRESS = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")
_NUMBER = re.compile(r"\d{8,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)

REASONS = {
    "complete": "everything was done",
    "failures": "some campaigns failed",
    "quota_spent": "the day's quota was spent",
    "throttled": "the API asked for too long a wait",
    "sick_server": "the server failed too often",
    "set_aside": "some campaigns must wait",
    "max_requests": "--max-requests was reached",
    "max_duration": "--max-duration was reached",
    "credentials_refused": "the key or token was refused",
    "storage": "the disk refused to write",
    "bad_input": "the list of campaigns could not be read",
    "bug": "an unexpected error came up",
    "cancelled": "it was cancelled",
    "SIGINT": "Ctrl-C stopped it",
    "SIGTERM": "SIGTERM stopped it",
    "SIGHUP": "the terminal was closed (SIGHUP)",
}
"""Each follows the word because."""

_AGAIN = "Run the same command again: it tries these campaigns once more."
_REPORT_IT = f"{_AGAIN} If it stays, the message says what the API sent."
ADVICE = {
    "not_found": "The API does not know this campaign. Check the id and the account; then add "
    "--retry-failed to the command.",
    "not_sent": "The campaign is not sent yet. Later runs try it again.",
    "rejected": "The API refuses this request. Read the message; then add --retry-failed to the "
    "command.",
    "forbidden": "The account has no privilege for this campaign. Ask the account's owner.",
    "redirected": "The API sent the request elsewhere, and that is not followed. Check --base-url.",
    "set_aside": "The API asked for a long wait. Run the same command later.",
    "moving": "Events arrived faster than they could be read. Run the same command at a quieter "
    "time.",
    "unsettled": "Events arrived faster than they could be read. Run the same command at a quieter "
    "time.",
    "page_cap": "The campaign has more pages than --max-pages allows. Raise it.",
    "poison_page": "One page never came. Run the same command again, with a smaller "
    "--min-page-size.",
    "looping_cursor": "The API's next link led back to an earlier page. " + _AGAIN,
    "cursor_dropped": "The API forgot its cursor twice. " + _AGAIN,
    "foreign_link": "The API's next link led to another host or report. " + _REPORT_IT,
    "bad_link": "The API's next link could not be used. " + _REPORT_IT,
    "damaged_file": "A file on the disk is damaged. Add --repair to the command.",
    "unexpected": "An unexpected error in harvester. The message names the file and line.",
}

_FINAL = frozenset({"not_found", "rejected", "forbidden"})  # not tried again unasked


def advice(kind: str) -> str:
    """What to do about a kind of failure."""
    return ADVICE.get(kind, _REPORT_IT)


def because(reason: str) -> str:
    """Why a run ended."""
    return REASONS.get(reason) or plain(reason.replace("_", " "), at_most=60) or "unknown"


def identifier(text: str, *, at_most: int = 60) -> str:
    """A name or id from outside, fit to be shown: short, printable, without addresses."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * at_most])
    shown = _ADDRESS.sub("[address]", " ".join(shown.split()))
    return shown if len(shown) <= at_most else f"{shown[: at_most - 1]}…"


def plain(text: str | None, *, keep: str = "", at_most: int = 160) -> str:
    """Text from outside in the same way, and without ids of contacts; an id `keep` stays."""
    shown = identifier(text or "", at_most=at_most)
    return _NUMBER.sub(lambda found: found[0] if found[0] == keep else "[id]", shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the harvest stands, in a sentence, and what to do next."""

    headline: str
    sentence: str
    next_step: str
    command: str | None = None
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The facts that the verdict follows from."""

    directory: str
    settings: Mapping[str, str]
    campaigns: Campaigns
    failed_kinds: frozenset[str]
    rows: int
    last_run: Run | None
    under_way: bool
    killed: bool  # a run began after the last one that left a summary
    differing_files: int
    now: datetime


def verdict(facts: Standing) -> Verdict:
    """The sentence and the next command. The first case that holds decides."""
    counts, last = facts.campaigns, facts.last_run
    known = "campaigns" if last else "campaigns that were begun"
    done = f"{counts.complete:,} of {counts.total:,} {known} are complete"
    command = run_command(facts.directory, facts.settings)
    again = "The same command goes on where it stopped."
    if facts.under_way:
        return Verdict(
            headline="A run is under way",
            sentence=f"So far {done}. This page shows what was there when it was made.",
            next_step="Nothing to do. Watch it with:",
            command=shlex.join(["harvester", "status", facts.directory]),
        )
    if facts.differing_files:
        return Verdict(
            headline="Finished files differ from the manifest",
            sentence=f"{_files(facts.differing_files)} not what was harvested; {done}.",
            next_step="Harvest these files again:",
            command=f"{command} --repair",
        )
    if not counts.total:
        return Verdict(
            headline="Nothing is harvested yet",
            sentence="The directory knows no campaign.",
            next_step="Begin with a list of campaign ids:",
            command=command,
        )
    if facts.killed or last is None:
        return Verdict(
            headline="The last run was cut off",
            sentence=f"It left no ending, as after a kill or a power cut; {done}. "
            "Nothing that was saved is lost.",
            next_step=again,
            command=command,
        )
    if last.reason == "credentials_refused":
        return Verdict(
            headline="The key or token was refused",
            sentence=f"The last run stopped for it; {done}.",
            next_step="Find out what is wrong, mend it, and run the same command again:",
            command="harvester check",
        )
    if counts.partial or counts.pending:
        return Verdict(
            headline="Stopped before the end",
            sentence=f"{done}; the last run ended because {because(last.reason)}.",
            next_step=again,
            command=command,
            not_before=last.resume_at if (last.resume_at or facts.now) > facts.now else None,
        )
    if counts.failed:
        final = facts.failed_kinds <= _FINAL
        return Verdict(
            headline=f"Over, with {counts.failed:,} failed "
            + ("campaign" if counts.failed == 1 else "campaigns"),
            sentence=f"{done}, with {facts.rows:,} rows. "
            "The table of failures says why, and what to do.",
            next_step="The API refused these for good. Where that has changed, try them again:"
            if final
            else "Try the failed campaigns again:",
            command=f"{command} --retry-failed" if final else command,
        )
    return Verdict(
        headline="Complete",
        sentence=f"All {counts.total:,} campaigns are harvested: {facts.rows:,} rows.",
        next_step="To add what has happened since:",
        command=f"{run_command(facts.directory, {**facts.settings, 'since': ''})} --since last",
    )


def _files(count: int) -> str:
    return "1 finished file is" if count == 1 else f"{count:,} finished files are"


_DEFAULTS = {"report": "opens", "page_size": "500"}
_ORIGINS = frozenset({"https://api.constantcontact.com", "https://api.cc.email"})


def run_command(directory: str, settings: Mapping[str, str]) -> str:
    """The command that made the directory, as far as it is known; IDS stands for the ids."""
    words = ["harvester", "run", "-i", "IDS", "-o", directory]
    for name in ("report", "api", "base_url", "since", "page_size", "compress"):
        value = settings.get(name, "")
        if name == "report" and set(value.split(",")) == set(DATE_FIELDS):
            value = "all"
        usual = value in _ORIGINS if name == "base_url" else value == _DEFAULTS.get(name, "")
        if value and not usual:
            words += [f"--{name.replace('_', '-')}", value]
    return shlex.join(words)
