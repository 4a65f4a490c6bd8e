#!/usr/bin/env -S wasgi cgi
# A CGI program for Apache's ScriptAlias: an app.toml whose first line starts it. `wasgi build` makes its image ahead of
# the first request; run it as Apache's user, with the same XDG_CACHE_HOME.

[app]
name = "hello"
root = "/srv/hello"
wsgi-file = "wsgi.py"
snapshot-cache = true

[limits]
request-body = "32MiB"
