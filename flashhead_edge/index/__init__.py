"""From vocabulary rows to a head index: calibration, clustering, quality."""
