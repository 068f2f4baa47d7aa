"""What workers tell each other: rows as bytes, frames, messages, and who waits for them."""
