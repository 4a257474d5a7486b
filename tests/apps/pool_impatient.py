"""A module whose sockets give up soon, those of others included; one that it made before does not."""

import os
import socket

PATIENT = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket.setdefaulttimeout(0.1)


def is_patient() -> bool:
    return os.get_blocking(PATIENT.fileno())
