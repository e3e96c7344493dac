"""The executor that a host program is to use: ours or the standard one, as the environment says.

The body of a case is the same for both, as it would be for a user who changes the import.
"""

from __future__ import annotations

import os
from functools import partial

if os.environ["PIDFDPOOL_CONTENDER"] == "standard":
    from concurrent.futures import ProcessPoolExecutor
else:
    from pidfdpool import ProcessPoolExecutor

    if os.environ["PIDFDPOOL_CONTENDER"] == "fork":
        ProcessPoolExecutor = partial(ProcessPoolExecutor, mp_context="fork")
