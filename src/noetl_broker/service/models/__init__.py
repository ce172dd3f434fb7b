"""What each action is given and what it answers: pydantic models. They load without the store, so help is quick.

A bound, a default or a description of a field stands here and nowhere else.
"""
