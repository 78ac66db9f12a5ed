"""One thread for each test process: the tests' models are tiny, and cores may be shared."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
