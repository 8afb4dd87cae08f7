"""The front door on Quart: authenticate, decode, ask, answer. No decision is made here."""
