"""Measuring how fast a bundle decodes, in turn with dense heads over the same body and with other programs."""
