"""Durable state: what may be asked of it (`contract`), on a disk (`sqlite`), and in memory."""
