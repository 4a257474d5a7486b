"""A module whose sockets give up soon, those of others included."""

import socket

socket.setdefaulttimeout(0.1)
