"""The core: one event in, one decision out; it knows no database, no clock and no chance.

Reading order, which is the import order: model, state, context, draft, events, workflow, queue, joins, transitions,
entering, failure, initial, iterators, finalize, dispatcher, core, story, replay.
"""
