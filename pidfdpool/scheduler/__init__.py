"""The pool's decisions: `Machine.decide(event, now)` turns what happened into what is to be done.

Pure: no process, no clock, no I/O, no lock. `loop` owns the one Machine of a pool, calls it under the pool's lock
from whichever thread observed the event, and carries out the actions in their order. `now` is any clock in
seconds that never runs backwards.

Storeys of one house, each a class that adds to the one below it and calls nothing above it:

    machine   Machine: events about the pool, how many workers there are to be, and the order in which it all settles
    workers   what happens to one worker, and when one has to go
    prefetch  which tasks are sent ahead of the one that a worker runs, and taken back
    tasks     what becomes of one task: waiting, attempts, the last word on it
    pool_state   what is known, and the few steps by which it changes
      queue, timers    the tasks that wait, the moments that are waited for

What can happen to a worker is one table, `states.RULES`: a row says in which states an event is taken, where the
slot goes, and why. After every event `_settle` brings the pool forward as a whole: hand out tasks, refill slots,
let go of those that were replaced, close.

Two events happen for each task, and in a busy pool mostly change nothing but the line of those that wait. For these
there is a short way beside `decide`: `enqueue` and `hand_over` for Submitted, `take_answers` for Finished. Each does
all of it or, where anything else is to be decided, nothing.

What holds after every decision, and what the property tests check:
  - a task waits, or is in or ahead of exactly one worker, or is resolved; it is resolved once;
  - a task that a worker may have begun goes back into the queue only if its policy grants it another attempt;
  - no more tasks run at a time than the pool is large;
  - a pool that is asked to close, or that breaks, closes.
"""
