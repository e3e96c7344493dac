"""Limits the threads that numerical libraries use in the workers: the option threads_per_worker.

Called by `boot` in the template, on its only thread, before the preload and before any script. Loaded only if a limit
is wanted. Workers inherit what is set here. So does what their tasks start.

Nearly every such library reads an environment variable when it is loaded, and never again. So the variables are set
first. A library that is loaded already (the template is a fork of a host that uses it, or a .pth file has loaded it)
is limited by threadpoolctl, if that is installed: it finds the copies of OpenBLAS, MKL, BLIS and OpenMP in the
process and calls the function of each.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

VARIABLES = (
    "OMP_NUM_THREADS",  # OpenMP, and with it most compiled extensions; also PyTorch, pyarrow and faiss
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",  # libraries written in Rust, such as tokenizers
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
# numba reads its variable again at each compilation, and refuses another number once its threads run.
_READ_AGAIN = {"NUMBA_NUM_THREADS": "numba"}
# Modules that load one of the libraries which threadpoolctl knows. To look for the libraries takes it 20 ms.
_WITH_THREADS = ("numpy", "scipy", "sklearn", "torch", "numexpr", "numba", "faiss", "cv2", "pandas", "xgboost")


def apply(threads: int) -> None:
    """Have the libraries of this process, and of those that it forks and starts, use at most so many threads."""
    for name in VARIABLES:
        if _READ_AGAIN.get(name) not in sys.modules:
            os.environ[name] = str(threads)
    if not sys.modules.keys().isdisjoint(_WITH_THREADS):
        with suppress(ImportError):
            from threadpoolctl import threadpool_limits

            threadpool_limits(limits=threads)
