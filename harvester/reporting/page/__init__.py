"""One self-contained HTML page about a harvest.

    sources → gather (files, troubles, periods) → figures → verdict → render (words, page.html)

The page has no script, loads nothing, and shows no address and no contact. Its size is bounded,
whatever the directory holds.
"""
