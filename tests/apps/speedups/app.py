from fast import KIND, double
from markupsafe import escape


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/escape":
        return [escape("a<b").encode()]
    return [f"{KIND} {double(21)}".encode()]
