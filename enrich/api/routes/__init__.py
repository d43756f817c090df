"""The routes, a file for each kind; `router` makes them for what they work with."""
