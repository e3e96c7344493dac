"""Where gevent has replaced threads, a greenlet hands over the records of workers, and handlers may switch."""

from __future__ import annotations

import pytest

from tests.conditions import run_python

pytest.importorskip("gevent")


def test_handlers_run_in_a_greenlet_and_the_others_go_on(way):
    done = run_python(
        f"""
        from gevent import monkey
        monkey.patch_all()
        import gevent, logging
        from pidfdpool import PidfdPoolExecutor
        from tests.loop.test_forwarded_logs import log, log_many

        class Sleeps(logging.Handler):
            def emit(self, record):
                gevent.sleep(0.001)
                got.append(record.getMessage())

        def tick():
            while True:
                ticks.append(1)
                gevent.sleep(0.002)

        got, ticks = [], []
        logging.basicConfig(level="INFO", handlers=[Sleeps()])
        ticker = gevent.spawn(tick)
        with PidfdPoolExecutor(2, mp_context={way!r}, forward_logs=True) as pool:
            for future in [pool.submit(log, f"s{{n}}") for n in range(30)]:
                future.result()
            gevent.joinall([gevent.spawn(lambda n=n: pool.submit(log, f"g{{n}}").result()) for n in range(10)])
            pool.submit(log_many, 100).result()
            before = len(ticks)
        ticker.kill()
        print(len(got), len(ticks) > before)
        """
    )
    assert (done.stdout.split(), done.stderr) == (["140", "True"], "")
