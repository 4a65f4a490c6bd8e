# Has an app, but not under the name that is asked for.
def app(environ, start_response):
    start_response("200 OK", [])
    return []
