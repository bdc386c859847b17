"""One self-contained HTML page about a harvest.

    files of a directory → sources → gather (scan, troubles, periods) → figures → verdict → page.html

The page has no script, loads nothing, and shows no address and no contact. Its size is bounded,
whatever the directory holds.
"""
