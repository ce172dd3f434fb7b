"""What commands, pages and checks read and change, one module a noun."""
