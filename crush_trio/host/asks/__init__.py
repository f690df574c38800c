"""What waits for a person, and who decides it."""
