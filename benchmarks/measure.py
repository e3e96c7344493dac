"""One measurement, in this process: `python -m benchmarks.measure SCENARIO CONTENDER FD [--quick]`.

A line of JSON is written to the descriptor. Then the process ends at once, without cleaning up: the runner kills
whatever is left of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from benchmarks.contender import Contender, UnsupportedError
from benchmarks.contenders import CONTENDERS
from benchmarks.limits import LIMITS
from benchmarks.scenario import HangsError, Scenario
from benchmarks.scenarios.catalogue import SCENARIOS
from pidfdpool.pidfd.prctl import set_parent_death_signal

NO_CONTENDER = "-"


def answer(scenario: Scenario, new: Callable[[int], Contender] | None, quick: bool) -> dict[str, Any]:
    """Run the measurement, and say how it went in the form in which it is stored."""
    try:
        return {"values": dict(scenario.measure(new, quick))}  # type: ignore[arg-type]
    except UnsupportedError as error:
        return {"verdict": "-", "reason": str(error)}
    except HangsError as error:
        return {"verdict": "hangs", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"verdict": "fails", "reason": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def main() -> None:
    """Do what the arguments say."""
    scenario, contender, descriptor, *rest = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)
    parent = os.getppid()
    set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        return
    if contender == NO_CONTENDER:
        result = answer(LIMITS[scenario].as_scenario(), None, "--quick" in rest)
    else:
        CONTENDERS[contender].prepare()
        result = answer(SCENARIOS[scenario], CONTENDERS[contender], "--quick" in rest)
    os.write(int(descriptor), json.dumps(result).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main()
