"""What a decode step will cost on a platform that is not at hand: a roofline from shapes alone."""
