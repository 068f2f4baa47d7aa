"""What a backend implements: stores, channels, computes, and what they can."""
