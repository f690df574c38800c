"""The tests; `tests/<layer>/` mirrors `crush_trio/<layer>/`."""
