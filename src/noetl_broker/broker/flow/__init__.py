"""How a visit ends, and where its token goes."""
