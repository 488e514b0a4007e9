"""The vocabulary every other package speaks: numpy, scipy and the standard library (OpenCV in ``preprocess``)."""
