"""The transaction of a batch of turns: claims mail, loads what the core asks for, writes what it decided.

Four round trips: begin, claim, write, commit. Changes of existing jobs, cancelled jobs, results to be loaded
and savepoints cost one more each. The transaction is READ COMMITTED, because the lock and the read under it must not
share a snapshot.
"""
