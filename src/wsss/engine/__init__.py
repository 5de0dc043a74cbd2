"""Many stages in order: recipes, runs, comparisons, publication."""
