"""Background jobs: commands that outlive their run."""
