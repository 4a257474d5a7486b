"""A module that sets a short timeout for all sockets, except for one that it made before."""

import os
import socket

PATIENT = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket.setdefaulttimeout(0.1)


def is_patient() -> bool:
    return os.get_blocking(PATIENT.fileno())
