"""The whole program under simulated days, by seed.

machine     one computer: two clocks, a disk that can lose power, the patches that put both in
wire        the simulated API where aiohttp would be
life        what a seed draws: an account, a harvest, and what happens to it
judge       what must be true after each run and at the end, seen from outside
bugs        bugs planted by patches, to show that the judge finds them
"""
