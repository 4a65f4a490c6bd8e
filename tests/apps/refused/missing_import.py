import nowhere_to_be_found

application = None
