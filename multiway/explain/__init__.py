"""Looking inside: pictures of what a model attends to. Knows abilities, never a particular method."""
