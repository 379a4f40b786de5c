"""The report of profiles: one page of HTML that needs nothing else, and its plots as SVG and PNG files."""
