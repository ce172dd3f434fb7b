"""The core: one event in, one decision out; it knows no database, no clock and no chance.

Reading order, which is the import order: model, state, context, draft, events, workflow, inputs, queue, failure,
transitions, retries, children, iterators, entering, joins, initial, finalize, dispatcher, core, memory, story, replay.
"""
