"""What `check` looks at, one file for each kind of thing.

Each has `look_at`, which is handed the settings, the findings to tell, and what was seen before it.
"""
