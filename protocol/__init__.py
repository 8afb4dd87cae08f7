"""What crosses the wire between the control plane and a runner; it knows nothing of either side."""
