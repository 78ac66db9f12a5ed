"""`python -m benchmarks`: measure speed and memory and write reports/benchmarks.csv."""

import argparse

from benchmarks.suite import run_benchmarks

if __name__ == "__main__":  # not in the processes that the measurements start
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure a fraction, and write nothing")
    parser.add_argument("--start-up", action="store_true", help="measure that part alone, and replace its rows")
    given = parser.parse_args()
    run_benchmarks(quick=given.quick, start_up_alone=given.start_up)
