"""Online: a frame in, a pose out. ``localizer.Localizer.process`` is the whole algorithm."""
