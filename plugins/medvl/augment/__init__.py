"""Augmentation of images together with the boxes in their answers."""
