def escape(text):
    return "in python: " + text.replace("<", "&lt;")
