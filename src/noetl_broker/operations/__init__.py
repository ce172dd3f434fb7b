"""The computations that the command line and the HTTP API share; nothing here prints or serves."""
