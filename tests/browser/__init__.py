"""Pages that the project makes, opened in a real browser: Debian's Chromium."""
