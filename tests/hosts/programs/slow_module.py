"""A module that takes its time to be imported. SLOW_MODULE names a file that tells when that has begun."""

import os
import time

with open(os.environ["SLOW_MODULE"], "a") as told:
    told.write(f"{os.getpid()}\n")
time.sleep(1.0)


def answer() -> int:
    return 42
