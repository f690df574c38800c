"""Commands: the tool `bash`, background jobs, and commands that need no permission."""
