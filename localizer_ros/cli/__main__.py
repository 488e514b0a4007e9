"""``python -m localizer_ros.cli`` is the ``localizer`` command."""

from localizer_ros.cli.main import main

if __name__ == "__main__":
    main()
