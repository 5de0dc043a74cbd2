"""Results in the form that others ask for: annotation tools, model files, evaluation servers."""
