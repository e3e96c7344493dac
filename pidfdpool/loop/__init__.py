"""The host's side of one pool: its thread, the leader, and the ends of channels to template and workers.

It turns what the kernel and the processes tell into events for the scheduler, carries out the actions of the
scheduler, and resolves futures.

Called by `executor`, on any thread of the user's, and by the pool thread itself. One lock per pool guards decisions;
no code of the user's runs while it is held. Nothing here decides: no rule, no limit, no retry.
"""
