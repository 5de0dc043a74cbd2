"""From a trained method to activation maps on disk, background scores, pseudo masks and their scores."""
