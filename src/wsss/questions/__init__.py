"""Questions about the classes of an image, and the texts that a model's answers become (QA-CLIMS)."""
