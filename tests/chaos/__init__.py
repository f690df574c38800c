"""Process chaos: a real server that is killed, and a checker that looks only from outside."""
