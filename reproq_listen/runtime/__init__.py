"""The process itself: signals, the service manager, memory, the flag that wakes it."""
