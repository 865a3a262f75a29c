"""
What people do with pins: find them in files, judge a policy, say when a pin is due. Rules without I/O.

A command of `pinset.cli` reads the files and the clock, asks a function of this package, and prints what comes back.
"""
