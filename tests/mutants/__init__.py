"""Bugs put into our own code on purpose, each with the tests that must notice it."""
