"""The operators: one file each, in the order in which rows flow through them.

A step measures, chooses or makes rows. It says what it reads and what it adds, and the rest,
shards, resume, keys and progress, is given to it by `stillroom.run`.
"""
