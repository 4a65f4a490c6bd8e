def connect():
    raise RuntimeError("no database here")


connect()


def application(environ, start_response):
    pass
