"""What is seen in one image and matched between two: keypoints, descriptors, masks, matchers."""
