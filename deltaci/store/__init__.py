"""Everything durable: the port, and SQLite and memory behind it."""
