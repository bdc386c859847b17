"""The whole program under simulated days, by seed.

plan        what a seed draws: an account, a harvest of it, faults, acts
life        the story: troubles, then a world that is well, then events that arrive
acts        what can happen in the troubled part
machine     one computer: two clocks, and the patches that put it into the program
process     one run, and how it dies
disk        what a kill or a power cut leaves of the files; database: of SQLite's
wire        the simulated API where aiohttp would be
runs        commands on the machine, and what becomes of them
judge       what must be true after each run and at the end, seen from outside
requests    its part about the requests; files: about the output
bugs        bugs planted by patches, to show that the judge finds them: bugs_in_files,
            bugs_in_requests
lives       lives one by one, or many
"""
