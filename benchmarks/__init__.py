"""
Benchmarks of pinset: ``python -m benchmarks --help``, and the README beside this file.
"""
