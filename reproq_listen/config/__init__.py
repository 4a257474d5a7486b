"""From text to checked settings: flags, environment, file and defaults."""
