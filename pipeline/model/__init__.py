"""A trained model on disk, and images in, boxes out."""
