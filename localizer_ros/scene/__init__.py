"""The scene: what lies on disk and is opened on a robot."""
