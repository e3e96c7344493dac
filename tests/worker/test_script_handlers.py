"""Signal handlers that the script sets when it is run again: they are the workers', and not the template's."""

from __future__ import annotations

import signal

from pidfdpool.serialization.scripts import Script
from pidfdpool.worker import script_module
from tests.conditions import in_forked_child

TEXT = """
import signal
def handler(number, frame):
    pass
for number in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGINT):
    signal.signal(number, handler)
if __name__ == "__main__":
    raise AssertionError("it is not the main module here")
"""


def of_template(number, frame):
    pass


def test_the_template_keeps_its_own_and_workers_get_them_but_for_ctrl_c(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(TEXT)

    def template():
        signal.signal(signal.SIGCHLD, of_template)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        script_module.install(Script(str(path), None))
        script_module.run_script()
        assert signal.getsignal(signal.SIGCHLD) is of_template
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        script_module.set_signals()  # as in a worker
        found = {signal.getsignal(number).__name__ for number in (signal.SIGUSR1, signal.SIGCHLD)}
        assert found == {"handler"}
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    assert in_forked_child(template) == "ok"
