"""Scenes: an endless, seeded world of shapes in which every task has a known answer."""
