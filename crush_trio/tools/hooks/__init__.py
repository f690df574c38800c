"""Hooks: commands of the user's that run at certain moments, and what they answer (CW 7.6)."""
