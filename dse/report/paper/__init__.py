"""Everything of a report that goes into a paper, in one folder and one archive."""
