"""The process itself: signals, the service manager, memory, and the flag that wakes its loop."""
