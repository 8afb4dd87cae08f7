"""The owners of all state: run and job actors, dispatch, timers, outbox, recovery, and the tree above them."""
