"""What a worker serves over HTTP: metrics, probes and events. Imported only when an address is given."""
