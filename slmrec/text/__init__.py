"""What the words of an item tell: titles to vectors, and how those vectors enter a recommender."""
