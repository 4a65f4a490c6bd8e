"""Says what it was asked for, so that a test can tell the app's replies from files."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    return [f"app: {method} {path}".encode("latin-1")]
