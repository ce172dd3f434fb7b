"""The health port: `/live`, `/ready` and `/metrics`."""
