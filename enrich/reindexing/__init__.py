"""An index that takes no vectors, replaced by a copy that does.

`plan` says what the copy is and what stands in its way, `digest` whether two indices hold the same
logs, `steps` carries it out and goes on where it was cut off.
"""
