"""What run folders say, for people: one HTML page about runs, Markdown tables of published results."""
