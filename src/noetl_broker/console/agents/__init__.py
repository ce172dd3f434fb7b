"""The tools of agents, by MCP: `tools` is the table, `server` calls them. It needs the extra `[mcp]`."""
