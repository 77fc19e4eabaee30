"""`workbench serve`: from flags and settings to a server, in front of either world.

Importing this package imports neither torch nor a web framework.
"""
