"""The WSGI application in CherryPy's server, with its autoreloader. Argument: the port."""

from __future__ import annotations

import sys

import cherrypy

from tests.hosts.programs.wsgi import app

if __name__ == "__main__":
    cherrypy.tree.graft(app, "/")
    cherrypy.config.update({"server.socket_host": "127.0.0.1", "server.socket_port": int(sys.argv[1])})
    cherrypy.engine.signals.subscribe()
    cherrypy.engine.start()
    cherrypy.engine.block()
