"""Published data as files: archives, downloads, and the one decoder of images."""
