"""Supervised processes that live long (nodes), such as consumers and servers.

It will stand beside `executor`, on the same rooms: a template that forks, pidfds that watch, and pure decisions.

Called by users, on their threads. It shares no pool with `executor`, and no other room imports this one. There is
nothing in it yet.
"""
