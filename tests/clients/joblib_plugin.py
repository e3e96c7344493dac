"""A plugin of pytest that puts our backend in the place of loky's, for joblib's own tests: `pytest -p THIS`."""

from __future__ import annotations

import joblib._parallel_backends
import joblib.parallel

import pidfdpool.joblib

joblib._parallel_backends.LokyBackend = pidfdpool.joblib.PidfdPoolBackend
joblib.parallel.BACKENDS["loky"] = pidfdpool.joblib.PidfdPoolBackend
del joblib.parallel.BACKENDS["pidfdpool"]  # once is enough
