"""The pool's decisions: `Machine.decide(event, now)` turns what happened into what is to be done.

Pure: no process, no clock, no I/O, no lock. `loop` owns the one Machine of a pool. It calls the machine under the
pool's lock, from whichever thread observed the event, and carries out the actions in their order. `now` is any clock
in seconds that never runs backwards. This room must not know of channels, payloads and futures: a task is a number,
and a worker is a slot and a generation.

A machine is made of parts. Each owns what the table says, and is given the parts that it uses when it is made. Parts
call those above them in the table and never those below, so each can be built without the ones below it.

    part                            owns                                            called by
    pool_state.PoolState            plain facts: phase, template, size, tasks and   all parts
                                    where those are that are not in the queue
    queue.TaskQueue                 the tasks that wait for a worker, their order   who moves tasks
    timers.Timers                   the moments that are waited for                 who waits
    workforce.Workforce             slots, which are idle or free, counts by state  who moves workers
    restart_limits.RestartLimiter   young deaths, and the pause after them          Breaker, WorkerRules, FastPath
    commands.Commands               what workers and the template are told          the parts below
    breaker.Breaker                 how a whole pool fails                          WorkerRules, PoolRules
    prefetch.Prefetcher             the measured pace; what is sent ahead of the    the parts below
                                    running tasks, what is taken back
    tasks.TaskRules                 accept, start, requeue, retry, expire, cancel   the parts below
    limits.TaskLimits               time, memory and kills: workers that end for    WorkerRules, Machine
                                    their task
    workers.WorkerRules             one worker's life, from fork to death           Machine
    pool_rules.PoolRules            template, number of workers, shutdown           Machine
    fast_path.FastPath              decisions about a task that change nothing      loop
                                    else
    machine.Machine                 the parts; which one takes which event, timer   loop

What the parts share are data: `events`, `actions`, `policy`, and in `states` the slots, the tasks and the table of
what can happen to a worker: `states.RULES`. A row says in which states an event is taken, where the slot goes, which
part takes it, and why. After every event `Machine._settle` brings the pool forward as a whole: it hands out tasks,
refills slots, lets those go that were replaced, and closes the pool.

Two events happen for each task, and in a busy pool mostly change nothing but the queue. So does Cancelled. For these
there is a fast path beside `decide`: `enqueue` and `hand_over` for Submitted, `cancel` for Cancelled, `take_answers`
for Finished. Each does everything or, where anything else is to be decided, nothing.

When all that waits is to be cancelled, it is set aside in one step, so that no worker gets it. Then it is cancelled
in slices, each in a decision of its own.

What holds after every decision, and what the property tests check:
  - a task is queued, or waits for its next attempt, or waits to be cancelled, or is in or ahead of exactly one
    worker, or is resolved; it is resolved once;
  - a task that a worker may have begun goes back into the queue only if its policy grants it another attempt;
  - no more tasks run at a time than the pool is large;
  - a pool that is asked to close, or that breaks, closes.
"""
