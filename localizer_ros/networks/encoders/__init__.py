"""Image encoders in torchvision's key names, so that its weight files load; torchvision itself is not needed."""
