from fast import KIND, double


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{KIND} {double(21)}".encode()]
