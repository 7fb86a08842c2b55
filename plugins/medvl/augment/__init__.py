"""Augmentation of pictures together with the boxes in their answers."""
