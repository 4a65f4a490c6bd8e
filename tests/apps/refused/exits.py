import sys

sys.exit("the settings are incomplete")
