"""Signals that are read from a descriptor: what they carry, who takes them, and what is left afterwards."""

from __future__ import annotations

import asyncio
import copy
import errno
import gc
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.pidfd import Pidfd, PidfdMisused, ReceivedSignal, SignalReceiver
from tests.conditions import open_descriptors, run_python

REAL_TIME = signal.SIGRTMIN + 3


@pytest.fixture(autouse=True)
def no_mask_is_left():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


# The thread that watches the time of tests does not block anything.
pytestmark = pytest.mark.filterwarnings("ignore:these threads do not block")


def to_this_thread(number):
    """Send a signal to this thread, which no other thread can take."""
    signal.pthread_kill(threading.get_ident(), number)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# ---- what a signal carries ---------------------------------------------------------------------------------

ONE = """
import os, signal, sys
from pidfdpool.pidfd import Pidfd, SignalReceiver
with SignalReceiver([signal.SIGUSR1, signal.SIGRTMIN + 3]) as receiver:
    print("ready", flush=True)
    for _ in range(int(sys.argv[1])):
        print(*receiver.receive(), flush=True)
    print(receiver.receive(0))
"""


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**63, 2**64 - 1, -1, -(2**63)])
def test_a_value_arrives_with_all_of_its_64_bits(value):
    with subprocess.Popen([sys.executable, "-c", ONE, "1"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with Pidfd.open(process.pid) as handle:
            handle.send_signal(REAL_TIME, value)
        expected = ReceivedSignal(REAL_TIME, os.getpid(), os.getuid(), -1, value % 2**64)
        assert process.stdout.readline() == f"{' '.join(map(str, expected))}\n"
        assert process.stdout.read() == "None\n"


def test_real_time_signals_queue_up_in_their_order():
    with subprocess.Popen([sys.executable, "-c", ONE, "500"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with Pidfd.open(process.pid) as handle:
            for number in range(500):
                handle.send_signal(REAL_TIME, number)
        values = [int(process.stdout.readline().split()[4]) for _ in range(500)]
        assert values == list(range(500))
        process.stdout.read()


def test_how_it_was_sent():
    with SignalReceiver([signal.SIGUSR1]) as receiver:
        to_this_thread(signal.SIGUSR1)
        assert receiver.receive() == ReceivedSignal(signal.SIGUSR1, os.getpid(), os.getuid(), -6, None)
        assert receiver.receive(0) is None


def test_a_signal_below_the_real_time_ones_waits_once():
    with SignalReceiver([signal.SIGUSR1, signal.SIGUSR2]) as receiver:
        for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1):
            to_this_thread(number)
        assert [got.number for got in receiver.pending()] == [signal.SIGUSR1, signal.SIGUSR2]
        assert receiver.pending() == []


def test_many_at_once():
    with SignalReceiver([REAL_TIME]) as receiver:
        for _ in range(200):
            to_this_thread(REAL_TIME)
        assert [got.number for got in receiver.pending()] == [REAL_TIME] * 200


# ---- waiting -----------------------------------------------------------------------------------------------


def test_waiting_ends_in_time():
    with SignalReceiver([signal.SIGUSR1]) as receiver:
        for timeout in (0, 0.01):
            assert receiver.receive(timeout) is None


@pytest.mark.parametrize("timeout", ["soon", float("nan"), -1, True])
def test_a_timeout_that_is_no_number_of_seconds(timeout):
    with SignalReceiver([signal.SIGUSR1]) as receiver:
        with pytest.raises(PidfdMisused, match=f"timeout {timeout!r}.*A timeout is a number of seconds"):
            receiver.receive(timeout)


def test_waiting_is_woken_by_a_signal_from_elsewhere():
    with SignalReceiver([signal.SIGUSR1]) as receiver:
        main = threading.get_ident()
        timer = threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGUSR1])
        timer.start()
        assert receiver.receive().number == signal.SIGUSR1
        timer.join()


def test_a_handler_of_another_signal_runs_while_it_waits():
    def interrupt(*_):
        raise KeyError("from the handler")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with SignalReceiver([signal.SIGUSR1]) as receiver:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyError, match="from the handler"):
                receiver.receive()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_in_an_event_loop():
    async def main():
        loop = asyncio.get_running_loop()
        got, done = [], asyncio.Event()

        def read():
            got.extend(receiver.pending())
            if len(got) == 3:
                done.set()

        with SignalReceiver([REAL_TIME]) as receiver:
            loop.add_reader(receiver.fileno(), read)
            for _ in range(3):
                await asyncio.sleep(0)
                to_this_thread(REAL_TIME)
            await asyncio.wait_for(done.wait(), 30)
            loop.remove_reader(receiver.fileno())
        return got

    assert [each.number for each in asyncio.run(main())] == [REAL_TIME] * 3


def test_with_other_descriptors_in_one_selector():
    with SignalReceiver([signal.SIGUSR1]) as receiver, selectors.DefaultSelector() as selector:
        selector.register(receiver, selectors.EVENT_READ)
        assert selector.select(0) == []
        to_this_thread(signal.SIGUSR1)
        assert [key.fileobj for key, _ in selector.select(10)] == [receiver]
        receiver.pending()
        assert selector.select(0) == []


# ---- who takes a signal ------------------------------------------------------------------------------------


def test_no_handler_is_called_while_it_is_open_and_what_is_left_goes_to_it_afterwards():
    called = []
    before = signal.signal(signal.SIGUSR1, lambda *_: called.append("handler"))
    try:
        with SignalReceiver([signal.SIGUSR1]) as receiver:
            to_this_thread(signal.SIGUSR1)
            assert receiver.receive().number == signal.SIGUSR1
            to_this_thread(signal.SIGUSR1)
            assert called == []
        assert called == ["handler"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_was_blocked_before_stays_blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with SignalReceiver([signal.SIGUSR1, signal.SIGUSR2]):
            pass
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGUSR1}
        assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


THREADS = """
import os, signal, threading, warnings
from pidfdpool import PidfdPoolExecutor
from pidfdpool.pidfd import Pidfd, SignalReceiver
warnings.simplefilter("error")

with PidfdPoolExecutor(1) as pool, Pidfd.self() as this:
    pool.submit(abs, 1).result()  # now there is the pool's thread
    with SignalReceiver([signal.SIGUSR1]) as receiver:
        go = threading.Event()
        threads = [threading.Thread(target=go.wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        for value in range(200):
            this.send_signal(signal.SIGUSR1, value)
            got = receiver.receive(20)
            assert got is not None and (got.value, got.pid) == (value, os.getpid()), got
        go.set()
        for thread in threads:
            thread.join()
print("ok")
"""


def test_signals_to_a_process_with_threads_that_were_started_afterwards_and_with_a_pool():
    ran = run_python(THREADS)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ok\n", "")


@pytest.mark.filterwarnings("default")
def test_a_thread_that_may_take_them_is_named():
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="an old thread")
    thread.start()
    try:
        with pytest.warns(RuntimeWarning, match="these threads do not block the signals of .*SIGUSR1.*an old thread"):
            SignalReceiver([signal.SIGUSR1]).close()
    finally:
        go.set()
        thread.join()


def test_workers_of_a_pool_do_not_have_the_signals_blocked():
    with SignalReceiver([signal.SIGUSR1]), PidfdPoolExecutor(1) as pool:
        assert pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result() == set()


# ---- the descriptor ----------------------------------------------------------------------------------------


def test_it_is_close_on_exec_and_never_blocks():
    with SignalReceiver([signal.SIGUSR1]) as receiver:
        assert not os.get_inheritable(receiver.fileno())
        assert not os.get_blocking(receiver.fileno())


def test_it_is_closed_once():
    receiver = SignalReceiver([signal.SIGUSR1])
    fd = receiver.fileno()
    receiver.close()
    receiver.close()
    assert receiver.closed
    assert not is_open(fd)
    for use in (receiver.fileno, receiver.receive, receiver.pending):
        with pytest.raises(PidfdMisused, match="SignalReceiver"):
            use()


@pytest.mark.parametrize("first", [0, 1])
def test_what_two_receive_is_blocked_until_both_are_closed(first):
    """Otherwise the next signal would end the process, for all that the other one is open."""
    receivers = [SignalReceiver([signal.SIGUSR1]), SignalReceiver([signal.SIGUSR1, signal.SIGUSR2])]
    receivers.pop(first).close()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    receivers.pop().close()
    assert signal.SIGUSR1 in blocked
    assert not {signal.SIGUSR1, signal.SIGUSR2} & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_warning_that_is_an_error_leaves_nothing_blocked():
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeWarning, match="do not block"):
                SignalReceiver([signal.SIGUSR2])
    finally:
        over.set()
        thread.join()
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_handler_that_is_called_when_its_signals_are_blocked_leaves_none_blocked(monkeypatch):
    """Guards: pthread_sigmask calls the handlers of signals that came just before, and has blocked them by then."""
    change_mask, opened = signal.pthread_sigmask, open_descriptors()

    def change_and_raise(how, signals):
        before = change_mask(how, signals)
        if how == signal.SIG_BLOCK and signals:
            raise KeyboardInterrupt
        return before

    monkeypatch.setattr(signal, "pthread_sigmask", change_and_raise)
    with pytest.raises(KeyboardInterrupt):
        SignalReceiver([signal.SIGUSR2])
    assert signal.SIGUSR2 not in change_mask(signal.SIG_BLOCK, ())
    assert open_descriptors() == opened


def test_another_thread_closes_the_descriptor_only():
    receiver = SignalReceiver([signal.SIGUSR1])
    thread = threading.Thread(target=receiver.close)
    thread.start()
    thread.join()
    assert receiver.closed
    assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def test_one_that_is_forgotten_is_closed():
    receiver = SignalReceiver([signal.SIGUSR1])
    fd = receiver.fileno()
    del receiver
    assert not is_open(fd)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def test_what_it_says_of_itself():
    with SignalReceiver([signal.SIGTERM, signal.SIGUSR1]) as receiver:
        assert repr(receiver) == f"<SignalReceiver SIGUSR1, SIGTERM, descriptor {receiver.fileno()}>"
        assert receiver.signals == {signal.SIGTERM, signal.SIGUSR1}
    assert repr(receiver) == "<SignalReceiver SIGUSR1, SIGTERM, closed>"


@pytest.mark.parametrize(
    ("signals", "complaint"),
    [
        ([], "signals is empty"),
        (7, "signals is 7, not a list of numbers"),
        ("SIGUSR1", "signals is 'SIGUSR1', not a list of numbers"),
        ([0], "There is no signal 0"),
        ([1000], "There is no signal 1000"),
        (["SIGUSR1"], "There is no signal 'SIGUSR1'"),
        ([True], "There is no signal True"),
        ([signal.SIGUSR1, signal.SIGKILL], "SIGKILL cannot be received"),
        ([signal.SIGSTOP], "SIGSTOP cannot be received"),
    ],
)
def test_what_cannot_be_received_is_refused(signals, complaint):
    with pytest.raises(PidfdMisused, match=complaint) as caught:
        SignalReceiver(signals)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_is_refused(how):
    """It would close the descriptor."""
    with SignalReceiver([REAL_TIME]) as receiver:
        with pytest.raises(TypeError, match="cannot copy or pickle 'SignalReceiver' object"):
            how(receiver)
        gc.collect()
        to_this_thread(REAL_TIME)
        assert receiver.receive(0).number == REAL_TIME


def test_a_sandbox_that_refuses_it():
    ran = run_python(
        """
        import errno, signal
        from pidfdpool.pidfd import PidfdError, SignalReceiver
        from tests.seccomp import deny

        deny({282, 289}, errno.EPERM)  # signalfd, signalfd4, on x86-64
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            SignalReceiver([signal.SIGUSR1])
        except PermissionError as error:
            assert isinstance(error, PidfdError) and "signalfd" in str(error)
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
            print("refused")
        """
    )
    assert (ran.stdout, ran.stderr) == ("refused\n", "")
