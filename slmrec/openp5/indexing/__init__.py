"""Ways to write an item as tokens. Each gives one tuple of symbols an item, and reads training parts alone."""
