"""The HTTP API: a row a route. `routes` is the table, `route` makes a route of a row, `changes` is the stream."""
