"""What ends a command with exit code 1 and is no bug."""


class CommandFailed(Exception):
    """The call is right and harvester is, too, but what was asked for cannot be had."""
