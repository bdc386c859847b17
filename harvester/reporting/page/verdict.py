"""How the harvest stands, in a sentence, and the next command. Pure."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from harvester.reporting.lines import count
from harvester.reporting.page.figures import Figures
from harvester.reporting.page.words import DATE_FIELDS, UNDATED, ended_by

_FOR_GOOD = {"not_found"}  # not tried again unasked


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the harvest stands, in a sentence, and what to do next."""

    headline: str
    sentence: str
    next_step: str
    command: str
    not_before: datetime | None = None


def verdict(facts: Figures) -> Verdict:
    """The sentence and the next command. The first case that holds decides."""
    command = run_command(facts.directory, facts.settings or {})
    return _not_to_be_judged(facts, command) or _unfinished(facts, command) or _over(facts, command)


def _done(facts: Figures) -> str:
    counts = facts.campaigns
    known = "campaigns" if facts.runs else "campaigns that were begun"
    return f"{counts.complete:,} of {counts.total:,} {known} are complete"


def _not_to_be_judged(facts: Figures, command: str) -> Verdict | None:
    """What comes before the question of whether the harvest is complete."""
    if facts.under_way:
        return Verdict(
            headline="A run is under way",
            sentence=f"So far {_done(facts)}. This page shows what was there when it was made.",
            next_step="Nothing to do. Watch it with:",
            command=shlex.join(["harvester", "status", facts.directory]),
        )
    if facts.differing:
        files = count(facts.differing, "finished file is", "finished files are")
        return Verdict(
            headline="Finished files differ from the manifest",
            sentence=f"{files} not what was harvested; {_done(facts)}.",
            next_step="Harvest these files again:",
            command=f"{command} --repair",
        )
    if not facts.campaigns.total:
        return Verdict(
            headline="Nothing is harvested yet",
            sentence="The directory knows no campaign.",
            next_step="Begin with a list of campaign ids:",
            command=command,
        )
    return None


def _unfinished(facts: Figures, command: str) -> Verdict | None:
    """The harvest can go on."""
    again = "The same command goes on where it stopped."
    if facts.killed or not facts.runs:
        return Verdict(
            headline="The last run was cut off",
            sentence=f"It left no ending, as after a kill or a power cut; {_done(facts)}. "
            "Nothing that was saved is lost.",
            next_step=again,
            command=command,
        )
    last = facts.runs[-1]
    if last.reason in {"credentials_refused", "sign_in_refused"}:
        return Verdict(
            headline="The key or token was refused",
            sentence=f"The last run stopped for it; {_done(facts)}.",
            next_step="Find out what is wrong, correct it, and run the same command again:",
            command="harvester check",
        )
    if facts.campaigns.partial or facts.campaigns.pending:
        resume_at = last.resume_at
        return Verdict(
            headline="Stopped before the end",
            sentence=f"{_done(facts)}. The last run was ended by: {ended_by(last)}.",
            next_step=again,
            command=command,
            not_before=resume_at if resume_at and resume_at > facts.made_at else None,
        )
    return None


def _over(facts: Figures, command: str) -> Verdict:
    """Every campaign is complete, or failed."""
    if failed := facts.campaigns.failed:
        final = {each.kind for each in facts.failures if each.now} == _FOR_GOOD
        return Verdict(
            headline=f"Over, with {count(failed, 'failed campaign')}",
            sentence=f"{_done(facts)}, with {facts.rows:,} rows. "
            "The section on failures says why, and what to do.",
            next_step="The API refused these for good. Where that has changed, try them again:"
            if final
            else "Try the failed campaigns again:",
            command=f"{command} --retry-failed" if final else command,
        )
    top_up = run_command(facts.directory, {**(facts.settings or {}), "since": ""})
    return Verdict(
        headline="Complete",
        sentence=f"All {facts.campaigns.total:,} campaigns are harvested: {facts.rows:,} rows.",
        next_step="To add what has happened since:",
        command=f"{top_up} --since last",
    )


_DEFAULTS = {"report": "opens", "page_size": "500"}
_ORIGINS = frozenset({"https://api.constantcontact.com", "https://api.cc.email"})


def run_command(directory: str, settings: Mapping[str, str]) -> str:
    """The command that made the directory, as far as it is known; IDS stands for the ids."""
    words = ["harvester", "run", "-i", "IDS", "-o", directory]
    reports = settings.get("report", "").split(",")
    dated = [each for each in reports if each not in UNDATED]
    settings = {**settings, "report": "all" if set(dated) == set(DATE_FIELDS) else ",".join(dated)}
    for name in ("report", "api", "base_url", "since", "page_size", "compress"):
        value = settings.get(name, "")
        usual = value in _ORIGINS if name == "base_url" else value == _DEFAULTS.get(name, "")
        if value and not usual:
            words += [f"--{name.replace('_', '-')}", value]
    if len(dated) < len(reports):
        words.append("--links")
    return shlex.join(words)
