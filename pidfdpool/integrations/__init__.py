"""Doors for other libraries: a pool of this package behind the interfaces that those libraries use.

Each door is a module of its own with an optional dependency, which is loaded only when the door is imported. A door
uses the public names of the package only, so it works as any program would.

Called by users and by the library that a door is for, on their threads. No other room imports this one. There is no
door yet.
"""
