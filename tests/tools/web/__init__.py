"""Tests of the tools that read the web, against servers on loopback and resolvers of our own."""
