"""`python -m benchmarks`: measure speed and memory and write reports/benchmarks.csv."""

import argparse

from benchmarks.suite import run_benchmarks

if __name__ == "__main__":  # not in the processes that the measurements start
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure a fraction, and write nothing")
    run_benchmarks(quick=parser.parse_args().quick)
