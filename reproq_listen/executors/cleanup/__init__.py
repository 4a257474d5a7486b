"""Nothing that a task starts outlives its attempt or its worker."""
