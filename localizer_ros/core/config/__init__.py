"""Every setting of the project, its default, unit, range and meaning: the only source of defaults."""
