"""The joblib backend "pidfdpool": importing this registers it.

    import joblib
    import pidfdpool.joblib

    with joblib.parallel_config("pidfdpool", n_jobs=4):
        ...

docs/integrations.md tells what it does, and what it takes.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    from pidfdpool import PidfdPoolExecutor  # noqa: F401  it raises ImportError, and says what there is instead

try:
    from joblib import register_parallel_backend
    from joblib.parallel import AutoBatchingMixin  # noqa: F401  older versions keep it elsewhere
except ImportError as error:
    raise ImportError(
        f"pidfdpool.joblib needs joblib 1.5 or newer ({error}): pip install 'pidfdpool[joblib]'", name="joblib"
    ) from error

from pidfdpool.integrations.joblib_backend.backend import PidfdPoolBackend

__all__ = ["PidfdPoolBackend"]

register_parallel_backend("pidfdpool", PidfdPoolBackend)
