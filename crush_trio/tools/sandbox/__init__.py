"""What a sandboxed run may touch, and how the kernel is told so."""
