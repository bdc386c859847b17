"""The wire without I/O: what to ask, how to read a page, and what an answer means."""
