"""Who holds, sends and expects what."""
