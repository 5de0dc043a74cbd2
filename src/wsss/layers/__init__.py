"""Parts that several methods share, one noun per file."""
