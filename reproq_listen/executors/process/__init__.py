"""One child process: pipes, limits, environment, exit."""
