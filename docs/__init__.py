"""Pages for readers. Those named in `generate.py` are made from the code: change the code, then run `make docs`."""
