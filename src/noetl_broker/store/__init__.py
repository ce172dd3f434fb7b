"""The store remembers: rows, transactions, mail and migrations; the only importer of asyncpg."""
