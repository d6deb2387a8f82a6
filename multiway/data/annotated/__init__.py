"""Readers of benchmarks in their original annotation files: each turns one split of one task into `Examples`."""
