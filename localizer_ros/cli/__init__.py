"""The ``localizer`` command."""
