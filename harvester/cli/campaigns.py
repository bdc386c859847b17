"""`harvester campaigns`: the ids of an account's campaigns, ready for `run -i -`."""

import click


@click.command()
def campaigns() -> int:
    """List campaign ids from the API, one a line."""
    raise click.UsageError("not yet")
